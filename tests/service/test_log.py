"""Lines of the log, for people and for programs, and what keeps lines about requests from becoming a flood."""

import json
import logging
import subprocess
import sys

import pytest

from service.api.correlation import NONE
from service.api.journal import MOST_ERRORS, Journal
from service.api.trip import Trip
from service.log import FIELDS, MARKS, JsonLines, Lines, Marks


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("leadtime.test", logging.WARNING, __file__, 1, message, (), None)
    made.created = 1_700_000_000.25
    setattr(made, FIELDS, fields)
    return made


def test_a_line_for_programs_is_one_json_object() -> None:
    line = JsonLines().format(record('two\nlines and "quotes"', status=200, seconds=0.5))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "leadtime.test",
        "message": 'two\nlines and "quotes"',
        "status": 200,
        "seconds": 0.5,
    }


def test_a_traceback_is_part_of_the_object() -> None:
    failed = record("it failed")
    try:
        raise ValueError("why")
    except ValueError:
        failed.exc_info = sys.exc_info()
    line = JsonLines().format(failed)
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("ValueError: why")


def test_text_that_is_no_utf_8_is_escaped() -> None:
    assert json.loads(JsonLines().format(record("a file \udcff")))["message"] == "a file \\udcff"


@pytest.mark.parametrize("lines", [JsonLines(), Lines("%(message)s")], ids=["json", "text"])
def test_what_is_logged_of_a_request_names_it(lines: logging.Formatter) -> None:
    token = MARKS.set(Marks("an-id", "a-trace"))
    try:
        line = lines.format(record("it failed"))
    finally:
        MARKS.reset(token)
    assert "an-id" in line
    assert "a-trace" in line
    assert "an-id" not in lines.format(record("something else"))


def test_the_configuration_is_one_that_logging_takes() -> None:
    # In a process of its own: to configure logging closes every handler there is, those of other tests' libraries too.
    program = (
        "import logging.config\n"
        "from service.log import log_configuration\n"
        "for form in ('text', 'json'):\n"
        "    logging.config.dictConfig(log_configuration('info', form))\n"
        "    logging.getLogger('leadtime.test').info('said')\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    text, program = said.stderr.splitlines()
    assert text.endswith("INFO leadtime.test: said")
    assert json.loads(program)["message"] == "said"


def test_errors_are_logged_up_to_a_number_a_second_and_the_others_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    monkeypatch.setattr("service.api.journal.perf_counter", lambda: now)
    journal, trip = Journal(0.0), Trip("POST", "/forecast", (), NONE)

    def errors(count: int) -> None:
        for _ in range(count):
            if journal.takes(503):
                journal.write(trip, 503, trip.came)

    errors(MOST_ERRORS + 50)
    assert len(caplog.records) == MOST_ERRORS
    now = 101.0
    errors(2)
    assert [getattr(record, FIELDS).get("left_out") for record in caplog.records[MOST_ERRORS:]] == [50, None]


def test_a_share_of_what_went_well_is_logged() -> None:
    assert not any(Journal(0.0).takes(200) for _ in range(100))
    assert all(Journal(1.0).takes(200) for _ in range(100))
    some = Journal(0.25)
    assert 100 < sum(some.takes(200) for _ in range(1000)) < 400
