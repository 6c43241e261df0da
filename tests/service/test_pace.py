"""What is expected of a model's next run."""

import pytest

from service.pace import Pace


def test_a_run_is_expected_to_take_what_one_as_large_took() -> None:
    pace = paced(s16=0.5e-3, s64=1.2e-3)
    assert pace.expect(64) == pace.expect(100) == 1.2e-3


def test_a_larger_run_than_any_is_expected_to_take_as_many_times_longer() -> None:
    assert paced(s16=0.5e-3).expect(64) == pytest.approx(2e-3)


def test_a_run_that_was_held_up_is_taken_for_the_rule_until_many_others_have_gone_by() -> None:
    pace = paced(s16=0.5e-3, s64=1.0)
    for _ in range(255):
        assert pace.expect(64) == 1.0
        pace.learn(16, 0.5e-3)
    pace.learn(16, 0.5e-3)
    assert pace.expect(64) == pytest.approx(2e-3)
    pace.learn(64, 1.5e-3)
    assert pace.expect(64) == 1.5e-3


def test_what_was_not_seen_for_long_is_expected_to_take_no_longer_for_it() -> None:
    pace = paced(s1=0.2e-3, s64=1.2e-3)
    for _ in range(300):
        pace.learn(1, 0.2e-3)
    assert pace.expect(64) == 1.2e-3


def paced(**seconds: float) -> Pace:
    """A pace that has seen runs of so many steps, named as `s30`."""
    pace = Pace()
    for steps, taken in seconds.items():
        pace.learn(int(steps[1:]), taken)
    return pace
