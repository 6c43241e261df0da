"""The generated series that the bundled model is fitted on."""

import numpy as np

from training.pool import generate


def test_the_same_seed_generates_the_same_series() -> None:
    first, second = (generate(np.random.default_rng(5), series=64, length=100) for _ in range(2))

    np.testing.assert_array_equal(first, second)


def test_other_seeds_generate_other_series() -> None:
    first, second = (generate(np.random.default_rng(seed), series=64, length=100) for seed in (1, 2))

    assert not np.isclose(first, second).all(axis=1).any()


def test_series_are_finite_and_never_constant() -> None:
    series = generate(np.random.default_rng(0), series=3000, length=200)

    assert series.shape == (3000, 200)
    assert series.dtype == np.float32
    assert np.isfinite(series).all()
    assert (np.ptp(series, axis=1) > 0).all()


def test_many_kinds_are_among_them() -> None:
    series = generate(np.random.default_rng(0), series=2000, length=400)
    whole_numbers = (series == series.round()).all(axis=1).mean()
    at_zero = ((series.min(axis=1) == 0) & ((series == 0).mean(axis=1) > 0.05)).mean()
    rising_or_falling = (np.abs([np.corrcoef(one, np.arange(400))[0, 1] for one in series]) > 0.8).mean()

    assert 0.05 < whole_numbers < 0.3
    assert 0.02 < at_zero < 0.3
    assert 0.05 < rising_or_falling < 0.6
