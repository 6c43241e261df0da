"""Bad requests: each with the status, the place and the message that it is answered with."""

import json
import math
from dataclasses import dataclass, field

import httpx
import pyarrow as pa
import pytest

from tests.streams import MEDIA_TYPE, stream

ONE = "/forecast"
MANY = "/forecast/multi-step"
NUMBER = "must be a number: text, true, false, null, lists and objects are not"
FINITE = "must be a finite number: NaN and infinities are not"
RANGE = "must be a number from -3e+38 to 3e+38"
WINDOW = "must be a window: a list of numbers, or a list of rows of numbers"
HORIZON = "must be a whole number of steps, 1 or more, without quotes or a decimal point"
FREQUENCY = "must be a frequency as text, such as h, 15min, D, W, M, Q or Y"
LEVELS = "must be a list of 1 to 10 different numbers above 0 and below 100, such as [80, 95]"
LEVEL = "must be a number above 0 and below 100: a coverage in percent, such as 80"
ISO = "must be an ISO 8601 date or time"
FUTURE = "must be the future of the model's exogenous columns: a list of numbers, or a list of rows of numbers"


@dataclass(frozen=True)
class Bad:
    """A bad request, and what must be said of it."""

    name: str
    body: str | bytes
    message: str
    pointer: str | None = None
    status: int = 422
    path: str = ONE
    headers: dict[str, str] = field(default_factory=dict)


def streamed(name: str, body: bytes, message: str, pointer: str | None = None, status: int = 422) -> Bad:
    """A bad request whose body is declared to be an Arrow stream."""
    return Bad(name, body, message, pointer, status, headers={"content-type": MEDIA_TYPE})


def sales(**fields: object) -> str:
    """A request to the model that takes the futures of two columns."""
    return json.dumps({"model": "sales", "window": [[1, 9, 0], [2, 9, 1]], **fields})


STREAM = stream({"window": [[1, 2]]})
REQUESTS = [
    # not JSON
    Bad("no body", "", "the body is empty: send a JSON object", status=400),
    Bad("a body of spaces", " \n ", "the body is empty", status=400),
    Bad("an open list", '{"window": [1, 2', "EOF while parsing a list at line 1 column 16", status=400),
    Bad("a trailing comma", '{"window": [1, 2,]}', "line 1 column 18", status=400),
    Bad("single quotes", "{'window': [1, 2]}", "line 1 column 2", status=400),
    Bad("a second document", '{"window": [1, 2]} {}', "trailing characters at line 1 column 20", status=400),
    Bad("not UTF-8", b'{"window": "\xff"}', "line 1 column 13", status=400),
    Bad("UTF-16", '{"window": [1, 2]}'.encode("utf-16"), "the body is not UTF-8", status=400),
    Bad("UTF-16 without a mark", '{"window": [1, 2]}'.encode("utf-16-le"), "the body is not UTF-8", status=400),
    Bad("a byte order mark", '\ufeff{"window": [1, 2]}', "begins with a byte order mark", status=400),
    Bad("nesting without end", "[" * 5000, "nests too deep at line 1 column 202: at most 200 levels", status=400),
    Bad("nesting in a window", '{"window": ' + "[" * 300 + "]" * 300 + "}", "nests too deep", status=400),
    Bad("nesting in an unknown field", '{"a": ' * 300 + "1" + "}" * 300, "nests too deep", status=400),
    Bad("a whole number of 5000 digits", '{"window": [1, ' + "9" * 5000 + "]}", "at most 4300 digits", status=400),
    Bad("a number with a leading zero", '{"window": [01, 2]}', "line 1 column 14", status=400),
    Bad(
        "a form",
        "window=1",
        "Content-Type: application/json",
        status=415,
        headers={"content-type": "application/x-www-form-urlencoded"},
    ),
    Bad(
        "text",
        '{"window": [1, 2]}',
        "Content-Type: application/json",
        status=415,
        headers={"content-type": "text/plain"},
    ),
    Bad("a compressed body", b"\x1f\x8b", "must not be compressed", status=415, headers={"content-encoding": "gzip"}),
    Bad(
        "a timeout that is no number",
        '{"window": [1, 2]}',
        "X-Request-Timeout-Ms must be a whole number of milliseconds",
        status=400,
        headers={"x-request-timeout-ms": "1s"},
    ),
    Bad(
        "a timeout of nothing",
        '{"window": [1, 2]}',
        "X-Request-Timeout-Ms must be a whole number of milliseconds",
        status=400,
        headers={"x-request-timeout-ms": "0"},
    ),
    Bad("too many bytes", '{"window": [' + "1," * 20_000 + "1]}", "more than 20000 bytes", status=413),
    # not a request
    Bad("a list", "[1, 2, 3]", "must be a JSON object", ""),
    Bad("a number", "5", "must be a JSON object", ""),
    Bad("null", "null", "must be a JSON object", ""),
    Bad("an empty object", "{}", "must hold either window", ""),
    Bad("both kinds", '{"window": [1, 2], "windows": [[1, 2]]}', "must hold either window", ""),
    Bad("a misspelt field", '{"windw": [1, 2]}', "did you mean window?", "/windw"),
    Bad(
        "an unknown field",
        '{"window": [1, 2], "temperature": 0}',
        "is no field of this request: leave it out",
        "/temperature",
    ),
    Bad("a field with a slash", '{"window": [1, 2], "a/b~c": 0}', "is no field of this request", "/a~1b~0c"),
    Bad("a field with a long name", '{"window": [1, 2], "' + "x" * 1000 + '": 0}', "whose name is very long", ""),
    Bad("a horizon for one step", '{"window": [1, 2], "horizon": 2}', "POST /forecast/multi-step only", "/horizon"),
    Bad("a null field", '{"window": [1, 2], "model": null}', "must not be null: leave it out", "/model"),
    Bad("a null window", '{"window": null, "windows": [[1, 2]]}', "must not be null: leave it out", "/window"),
    # numbers
    Bad("true among numbers", '{"window": [1, 2, true]}', NUMBER, "/window/2"),
    Bad("text among numbers", '{"window": [1, "2"]}', NUMBER, "/window/1"),
    Bad("null among numbers", '{"window": [null, 1, 2]}', NUMBER, "/window/0"),
    Bad("NaN", '{"window": [1, NaN]}', FINITE, "/window/1"),
    Bad("an infinity", '{"window": [-Infinity, 1]}', FINITE, "/window/0"),
    Bad("a number too large for 64 bits", '{"window": [1, 1e400]}', FINITE, "/window/1"),
    Bad("a number too large for 32 bits", '{"window": [1, 1e39]}', RANGE, "/window/1"),
    Bad("a number too small for 32 bits", '{"window": [1, 2, -3.1e38]}', RANGE, "/window/2"),
    Bad("a whole number of 400 digits", '{"window": [1, ' + "9" * 400 + "]}", FINITE, "/window/1"),
    Bad("a list among numbers", '{"window": [1, [2]]}', NUMBER, "/window/1"),
    Bad("an object among numbers", '{"window": [{}, 1]}', NUMBER, "/window/0"),
    Bad("the place in windows", '{"windows": [[1, 2], [1, 2], [1, 2], [1, 2, 3, "4"]]}', NUMBER, "/windows/3/3"),
    # windows
    Bad("a window that is text", '{"window": "1, 2, 3"}', WINDOW, "/window"),
    Bad("a window that is an object", '{"window": {"0": 1}}', WINDOW, "/window"),
    Bad("an empty window", '{"window": []}', "must hold at least one step", "/window"),
    Bad("no windows", '{"windows": []}', "must hold at least one window", "/windows"),
    Bad("windows that are none", '{"windows": 3}', "must be a list of windows", "/windows"),
    Bad("numbers where windows belong", '{"windows": [1]}', WINDOW, "/windows/0"),
    Bad("an empty row", '{"window": [[1], []]}', "must hold one number for each feature", "/window/1"),
    Bad("a number among rows", '{"window": [[1], [2], 3]}', "must be a row of numbers", "/window/2"),
    Bad("true in a row", '{"windows": [[[1], [2]], [[1], [2], [false]]]}', NUMBER, "/windows/1/2/0"),
    Bad("a list in a row", '{"window": [[1], [[2]]]}', NUMBER, "/window/1/0"),
    Bad("too short", '{"window": [1]}', "has 1 step, but this model needs at least 2", "/window"),
    Bad(
        "the second too short",
        '{"windows": [[1, 2], [1]]}',
        "has 1 step, but this model needs at least 2",
        "/windows/1",
    ),
    Bad("too long", json.dumps({"window": [1] * 101}), "has 101 steps, but at most 100 are accepted", "/window"),
    Bad("too many windows", json.dumps({"windows": [[1, 2]] * 9}), "must hold at most 8 windows", "/windows"),
    Bad(
        "numbers for three features",
        '{"model": "panel", "window": [1, 2]}',
        "holds single numbers, but this model has 3 features: send one row of 3 per step",
        "/window",
    ),
    Bad("a row too wide", '{"window": [[1], [2, 3]]}', "has 2 numbers, but this model has 1 feature (x0)", "/window/1"),
    Bad(
        "a row too narrow",
        '{"model": "panel", "windows": [[[1, 2, 3], [1, 2]]]}',
        "has 2 numbers, but this model has 3 features (x0, x1, x2)",
        "/windows/0/1",
    ),
    Bad(
        "a forecast out of range",
        '{"window": [-3e38, 3e38]}',
        "the forecast leaves the range of 32-bit floats",
        "/window",
    ),
    Bad(
        "one of two forecasts out of range",
        '{"windows": [[1, 2], [-3e38, 3e38]]}',
        "the forecast leaves the range of 32-bit floats",
        "/windows/1",
    ),
    # horizon
    Bad("no horizon", '{"window": [1, 2]}', f"is required, and {HORIZON}", "/horizon", path=MANY),
    Bad("horizon 0", '{"window": [1, 2], "horizon": 0}', HORIZON, "/horizon", path=MANY),
    Bad("horizon -1", '{"window": [1, 2], "horizon": -1}', HORIZON, "/horizon", path=MANY),
    Bad("horizon 3.0", '{"window": [1, 2], "horizon": 3.0}', HORIZON, "/horizon", path=MANY),
    Bad("horizon true", '{"window": [1, 2], "horizon": true}', HORIZON, "/horizon", path=MANY),
    Bad("horizon as text", '{"window": [1, 2], "horizon": "3"}', HORIZON, "/horizon", path=MANY),
    Bad("horizon null", '{"window": [1, 2], "horizon": null}', HORIZON, "/horizon", path=MANY),
    Bad("horizon too large", '{"window": [1, 2], "horizon": 51}', "must be at most 50", "/horizon", path=MANY),
    Bad(
        "horizon of 100 digits",
        '{"window": [1, 2], "horizon": ' + "9" * 100 + "}",
        "must be at most 50",
        "/horizon",
        path=MANY,
    ),
    Bad(
        "a horizon of 400 digits with levels",
        '{"window": [1, 2], "levels": [80], "horizon": ' + "9" * 400 + "}",
        "must be at most 50",
        "/horizon",
        path=MANY,
    ),
    # model and version
    Bad(
        "an unknown model",
        '{"window": [1, 2], "model": "nosuch"}',
        "there are: clock, default, diary, mean, panel, sales",
        status=404,
    ),
    Bad("an unknown version", '{"window": [1, 2], "version": "3"}', "it has: 1, 2, 10", status=404),
    Bad("a model that is no name", '{"window": [1, 2], "model": "../x"}', "must be a model's name as text", "/model"),
    Bad("a model that is a number", '{"window": [1, 2], "model": 1}', "must be a model's name as text", "/model"),
    Bad("a version that is a number", '{"window": [1, 2], "version": 1}', 'digits in quotes, such as "1"', "/version"),
    Bad(
        "a version with a leading zero",
        '{"window": [1, 2], "version": "01"}',
        'digits in quotes, such as "1"',
        "/version",
    ),
    # timestamps
    Bad("an origin that is no time", '{"window": [1, 2], "origin": "noon", "frequency": "h"}', ISO, "/origin"),
    Bad("an origin that is a number", '{"window": [1, 2], "origin": 1711800000, "frequency": "h"}', ISO, "/origin"),
    Bad(
        "an origin that is very long",
        '{"window": [1, 2], "origin": "' + "2" * 101 + '", "frequency": "h"}',
        ISO,
        "/origin",
    ),
    Bad(
        "an unknown zone",
        '{"window": [1, 2], "origin": "2024-03-30T12:00Z[Mars/Olympus]", "frequency": "h"}',
        "names a time zone that is not in the time zone database",
        "/origin",
    ),
    Bad(
        "an offset that the zone has not",
        '{"window": [1, 2], "origin": "2024-03-30T12:00+05:00[Europe/Berlin]", "frequency": "h"}',
        "has an offset that its time zone does not have at that time",
        "/origin",
    ),
    Bad(
        "a list of origins for one window",
        '{"window": [1, 2], "origin": ["2024-03-30"], "frequency": "D"}',
        "must be one text, for there is one window",
        "/origin",
    ),
    Bad(
        "fewer origins than windows",
        '{"windows": [[1, 2], [1, 2]], "origin": ["2024-03-30"], "frequency": "D"}',
        "has length 1, but there are 2 windows",
        "/origin",
    ),
    Bad(
        "a bad origin in a list",
        '{"windows": [[1, 2], [1, 2]], "origin": ["2024-03-30", "x"], "frequency": "D"}',
        ISO,
        "/origin/1",
    ),
    Bad("a number in a list of origins", '{"windows": [[1, 2]], "origin": [5], "frequency": "D"}', ISO, "/origin/0"),
    Bad(
        "an origin at the end of time",
        '{"window": [1, 2], "origin": "9999-12-31", "frequency": "D"}',
        "would pass the year 9999",
        "/origin",
    ),
    Bad(
        "an origin without a frequency",
        '{"window": [1, 2], "origin": "2024-03-30"}',
        "is required with origin",
        "/frequency",
    ),
    Bad("a frequency without an origin", '{"window": [1, 2], "frequency": "D"}', "send origin too", "/frequency"),
    Bad(
        "an unknown frequency",
        '{"window": [1, 2], "origin": "2024-03-30", "frequency": "daily"}',
        FREQUENCY,
        "/frequency",
    ),
    Bad(
        "a frequency that is a number",
        '{"window": [1, 2], "origin": "2024-03-30", "frequency": 1}',
        FREQUENCY,
        "/frequency",
    ),
    # known inputs
    Bad(
        "no future",
        sales(),
        "is required by this model: send what its 2 exogenous columns (price, promotion)",
        "/future",
    ),
    Bad("a null future", sales(future=None), "must not be null: leave it out", "/future"),
    Bad("a future that is text", sales(future="cheap"), FUTURE, "/future"),
    Bad("an empty future", sales(future=[]), "must hold at least one step", "/future"),
    Bad("true in a future", sales(future=[[1, True]]), NUMBER, "/future/0/1"),
    Bad("NaN in a future", sales(future=[[1, math.nan]]), FINITE, "/future/0/1"),
    Bad("a number in a future too large for 32 bits", sales(future=[[1e39, 0]]), RANGE, "/future/0/0"),
    Bad("a number among the rows of a future", sales(future=[[1, 2], 3]), "must be a row of numbers", "/future/1"),
    Bad("an empty row in a future", sales(future=[[]]), "must hold one number for each exogenous column", "/future/0"),
    Bad(
        "a future too short", sales(horizon=3, future=[[1, 0]]), "has 1 step, but 3 are forecast", "/future", path=MANY
    ),
    Bad("a future too long", sales(future=[[1, 0]] * 2), "has 2 steps, but 1 is forecast: send that one", "/future"),
    Bad(
        "a row of a future too narrow",
        sales(horizon=4, future=[[1, 0], [1, 0], [1, 0], [1]]),
        "has 1 number, but this model has 2 exogenous columns (price, promotion)",
        "/future/3",
        path=MANY,
    ),
    Bad("a future of single numbers", sales(future=[1]), "send one row of 2 per step", "/future"),
    Bad("a future for a model that takes none", '{"window": [1, 2], "future": [1]}', "leave it out", "/future"),
    Bad("futures for one window", sales(futures=[[[1, 0]]]), "goes with windows: send future instead", "/futures"),
    Bad(
        "a future for several windows",
        json.dumps({"model": "sales", "windows": [[[1, 1, 0]] * 2] * 2, "future": [[1, 0]]}),
        "goes with window: send futures instead",
        "/future",
    ),
    Bad(
        "fewer futures than windows",
        json.dumps({"model": "sales", "windows": [[[1, 1, 0]] * 2] * 2, "futures": [[[1, 0]]]}),
        "has length 1, but there are 2 windows: send one for each",
        "/futures",
    ),
    Bad(
        "text in the second future",
        json.dumps({"model": "sales", "windows": [[[1, 1, 0]] * 2] * 2, "futures": [[[1, 0]], [[1, "0"]]]}),
        NUMBER,
        "/futures/1/0/1",
    ),
    Bad(
        "a window without the columns beside its feature",
        '{"model": "sales", "window": [1, 2], "future": [[1, 0]]}',
        "has 1 feature (x0) and 2 exogenous columns (price, promotion): send one row of 3 per step",
        "/window",
    ),
    Bad(
        "a row of a window without a column",
        '{"model": "sales", "window": [[1, 1, 0], [2, 1]], "future": [[1, 0]]}',
        "has 2 numbers, but this model has 1 feature (x0) and 2 exogenous columns (price, promotion)",
        "/window/1",
    ),
    Bad(
        "no origin for a model that reads the calendar",
        '{"model": "clock", "window": [1, 2]}',
        "is required, for this model reads the calendar",
        "/origin",
    ),
    Bad(
        "another frequency for a model that reads the calendar",
        '{"model": "clock", "window": [1, 2], "origin": "2024-03-30", "frequency": "D"}',
        "must be h, for this model reads the calendar of such steps; or leave it out",
        "/frequency",
    ),
    Bad(
        "a window that begins before the calendar",
        '{"model": "clock", "window": [1, 2, 3], "origin": "0001-01-01"}',
        "would leave the years 1 to 9999",
        "/origin",
    ),
    Bad(
        "a calendar and no future",
        '{"model": "diary", "window": [[1, 2], [2, 3]], "origin": "2024-03-30"}',
        "send what its 1 exogenous column (promotion) will be at the step to be forecast",
        "/future",
    ),
    streamed(
        "an Arrow stream without the futures that a model needs",
        stream({"window": [[[1, 1, 0]] * 2]}, {"model": "sales"}),
        "is required by this model",
        "/futures",
    ),
    streamed(
        "null among the futures of an Arrow stream",
        stream({"window": [[[1, 1, 0]] * 2], "future": [[[1, None]]]}, {"model": "sales"}),
        NUMBER,
        "/futures/0/0/1",
    ),
    streamed(
        "a future too short in an Arrow stream",
        stream({"window": [[[1, 1, 0]] * 2] * 2, "future": [[[1, 0]], [[1, 0]] * 2]}, {"model": "sales"}),
        "has 2 steps, but 1 is forecast",
        "/futures/1",
    ),
    streamed(
        "a future too narrow in an Arrow stream",
        stream({"window": [[[1, 1, 0]] * 2], "future": [[[1]]]}, {"model": "sales"}),
        "has 1 number, but this model has 2 exogenous columns (price, promotion)",
        "/futures/0/0",
    ),
    streamed(
        "single numbers as futures in an Arrow stream",
        stream({"window": [[[1, 1, 0]] * 2], "future": [[1]]}, {"model": "sales"}),
        "send one row of 2 per step",
        "/futures/0",
    ),
    streamed(
        "text as the futures of an Arrow stream",
        stream({"window": [[[1, 1, 0]] * 2], "future": ["1"]}, {"model": "sales"}),
        "must be a column of the windows' futures",
        "/future",
    ),
    streamed(
        "futures that an Arrow stream's model does not take",
        stream({"window": [[1, 2]], "future": [[1]]}),
        "is not asked for, for this model has no exogenous columns: leave it out",
        "/futures",
    ),
    streamed(
        "a future as metadata of an Arrow stream",
        stream({"window": [[1, 2]]}, {"future": "[1]"}),
        "must be a column, named future, not metadata",
        "/future",
    ),
    # intervals and samples
    Bad("levels that are a number", '{"window": [1, 2], "levels": 80}', LEVELS, "/levels"),
    Bad("no levels", '{"window": [1, 2], "levels": []}', LEVELS, "/levels"),
    Bad("eleven levels", json.dumps({"window": [1, 2], "levels": list(range(10, 21))}), LEVELS, "/levels"),
    Bad("a level twice", '{"window": [1, 2], "levels": [80, 80.0]}', LEVELS, "/levels"),
    Bad("a level of 0", '{"window": [1, 2], "levels": [80, 0]}', LEVEL, "/levels/1"),
    Bad("a level of 100", '{"window": [1, 2], "levels": [100]}', LEVEL, "/levels/0"),
    Bad("a level as text", '{"window": [1, 2], "levels": ["80"]}', LEVEL, "/levels/0"),
    Bad("null levels", '{"window": [1, 2], "levels": null}', "must not be null: leave it out", "/levels"),
    Bad("no samples", '{"window": [1, 2], "samples": 0}', "must be a whole number from 1 to 1000", "/samples"),
    Bad("too many samples", '{"window": [1, 2], "samples": 1001}', "from 1 to 1000", "/samples"),
    Bad("a seed below zero", '{"window": [1, 2], "samples": 1, "seed": -1}', "must be a whole number from 0", "/seed"),
    Bad("a seed without samples", '{"window": [1, 2], "seed": 1}', "send samples too, or leave seed out", "/seed"),
    Bad(
        "a level too high",
        '{"window": [1, 2], "levels": [50, 99]}',
        "rests on errors, of which the model's file has 59 for each step: ask for levels of at most 96.6",
        "/levels",
    ),
    Bad(
        "intervals too far ahead",
        '{"window": [1, 2], "horizon": 4, "levels": [50]}',
        "which the model's file has for 3 steps ahead: ask for at most 3, or send windows of at least 51 steps",
        "/levels",
        path=MANY,
    ),
    Bad(
        "intervals from a file without errors",
        '{"model": "mean", "window": [1, 2], "levels": [95]}',
        "of which the model's file has none: send windows of at least 47 steps, whose own past has enough",
        "/levels",
    ),
    Bad(
        "samples from a file without errors",
        '{"model": "mean", "window": [1, 2], "samples": 5}',
        "of which the model's file has none: send windows of at least 28 steps",
        "/samples",
    ),
    Bad(
        "intervals from the past of too many windows",
        json.dumps({"model": "mean", "windows": [list(range(60))] * 2, "levels": [80]}),
        "asks for too much: to find the errors of their past, 2 windows are forecast from 104 earlier origins",
        "",
    ),
    Bad(
        "intervals in an Arrow stream",
        '{"window": [1, 2], "levels": [80]}',
        "goes with JSON only, as body and as answer",
        "/levels",
        headers={"accept": MEDIA_TYPE},
    ),
    streamed(
        "levels in an Arrow stream",
        stream({"window": [[1, 2]]}, {"levels": "[80]"}),
        "goes with JSON only, as body and as answer",
        "/levels",
    ),
    # Arrow streams: more of what can be wrong with them is in test_arrow.py
    streamed("an Arrow stream that is JSON", b'{"window": [1, 2]}', "is not a sound Arrow stream", status=400),
    streamed("an Arrow stream cut short", STREAM[:-30], "it ends within a message", status=400),
    streamed(
        "an Arrow stream with compressed buffers",
        stream({"window": [[1, 2]]}, compression="zstd"),
        "write it without lz4 or zstd",
        status=415,
    ),
    streamed("an Arrow stream without windows", stream({}), "is missing, and must be a column of windows", "/window"),
    streamed("an Arrow stream of text", stream({"window": ["1, 2"]}), "must be a column of windows", "/window"),
    streamed("a misspelt column in an Arrow stream", stream({"windows": [[1, 2]]}), "did you mean window?", "/windows"),
    streamed(
        "a model as a column of an Arrow stream",
        stream({"window": [[1, 2]], "model": ["default"]}),
        "must be metadata of the Arrow schema, not a column",
        "/model",
    ),
    streamed("null among the numbers of an Arrow stream", stream({"window": [[1, None]]}), NUMBER, "/windows/0/1"),
    streamed(
        "times as the origins of an Arrow stream",
        stream({"window": [[1, 2]], "origin": pa.array([0], pa.timestamp("s"))}),
        "must be a column of text",
        "/origin",
    ),
    streamed(
        "an origin as column and metadata",
        stream({"window": [[1, 2]], "origin": ["2024-01-01"]}, {"origin": "2024-01-01"}),
        "is both a column and metadata",
        "/origin",
    ),
]


@pytest.mark.parametrize("bad", REQUESTS, ids=lambda bad: bad.name)
def test_a_bad_request_is_answered_with_the_place_and_the_mend(client: httpx.Client, bad: Bad) -> None:
    headers = {"content-type": "application/json"} | bad.headers
    response = client.post(bad.path, content=bad.body, headers=headers)
    problem = response.json()
    assert response.status_code == problem["status"] == bad.status
    assert response.headers["content-type"] == "application/problem+json"
    assert client.get(problem["type"]).json()["title"] == problem["title"]
    if bad.pointer is None:
        assert bad.message in problem["detail"]
        assert "errors" not in problem
    else:
        (error,) = problem["errors"]
        assert error["pointer"] == bad.pointer
        assert bad.message in error["message"]


def test_the_table_is_long_enough_and_names_each_case_once() -> None:
    assert len(REQUESTS) >= 45
    assert len({bad.name for bad in REQUESTS}) == len(REQUESTS)


MARKER = "5417190283"


@pytest.mark.parametrize(
    "body",
    [
        f'{{"window": [1, "{MARKER}"]}}',
        f'{{"window": [1, {MARKER}e99]}}',
        f'{{"window": "{MARKER}"}}',
        f'{{"window": [1, 2], "model": "{MARKER}"}}',
        f'{{"window": [1, 2], "model": "{MARKER}/"}}',
        f'{{"window": [1, 2], "version": "{MARKER}"}}',
        f'{{"window": [1, 2], "origin": "{MARKER}", "frequency": "h"}}',
        f'{{"window": [1, 2], "origin": "2024-01-01", "frequency": "{MARKER}"}}',
        f'{{"window": [1, 2], "unknown": "{MARKER}"}}',
        f'{{"window": [1, 2], "horizon": {MARKER}}}',
        f'{{"window": [1, 2] {MARKER}',
    ],
)
@pytest.mark.parametrize("path", [ONE, MANY])
def test_an_error_never_repeats_what_was_sent(client: httpx.Client, path: str, body: str) -> None:
    response = client.post(path, content=body)
    assert 400 <= response.status_code < 500
    assert MARKER not in response.text


def test_every_faulty_window_is_named_up_to_twenty_of_them(client: httpx.Client) -> None:
    few = client.post(ONE, json={"windows": [[1, True], [1, 2], ["1"], [1, [2]], []]}).json()
    assert [error["pointer"] for error in few["errors"]] == [
        "/windows/0/1",
        "/windows/2/0",
        "/windows/3/1",
        "/windows/4",
    ]
    assert few["detail"] == "the body has 4 faults, the first at /windows/0/1"
    many = client.post(ONE, json={"windows": [[True]] * 1000}).json()
    assert len(many["errors"]) == 20
    assert many["detail"].endswith("the first 20 are listed")


def test_a_body_of_very_many_unknown_fields_is_refused_as_a_whole(roomy_client: httpx.Client) -> None:
    body = "{" + ",".join(f'"{number}":1' for number in range(250_000)) + "}"
    problem = roomy_client.post(ONE, content=body).json()
    assert problem["errors"] == [
        {"pointer": "", "message": "holds too many fields that are not known: send the known ones"}
    ]


def test_a_body_without_an_announced_length_is_measured_as_it_comes(client: httpx.Client) -> None:
    response = client.post(ONE, content=(b"[" + b"1," * 1000 for _ in range(20)))
    assert response.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", ONE, "POST"),
        ("DELETE", MANY, "POST"),
        ("POST", "/models", "GET, HEAD"),
        ("PUT", "/health/ready", "GET, HEAD"),
        ("PUT", "/docs/assets/docs.html", "GET, HEAD"),
    ],
)
def test_another_method_is_refused_with_those_that_are_allowed(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert response.json()["detail"] == f"this path answers {allowed} only"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nowhere", "there is no such path"),
        ("/forecast/", "there is no such path"),
        ("/docs/assets/nothing.js", "there is no such path"),
        ("/docs/assets/..%2f..%2fforecast.py", "there is no such path"),
        ("/models/nosuch", "there are: clock, default, diary, mean, panel, sales"),
        ("/models/default/versions/3", "it has: 1, 2, 10"),
        ("/models/default/versions/x", "it has: 1, 2, 10"),
        ("/problems/nosuch", "there is no such kind of problem; there are: unreadable-body"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(client: httpx.Client, path: str, message: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert message in response.json()["detail"]
