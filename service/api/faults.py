"""Parsing a body, and what pydantic says of a bad one in words that name the place and the mend.

A window or future is tried as numbers and as rows, so pydantic tells two stories of each bad one; here the story that
fits what was sent is kept. No message repeats anything of the body, and a pointer repeats no more than a short field
name.
"""

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import groupby, islice
from typing import Final, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from service.errors import Fault, InvalidRequest, UnreadableBody
from service.schemas import (
    EACH,
    FAULTS_AT_MOST,
    LARGEST_NUMBER,
    LARGEST_SEED,
    MOST_LEVELS,
    MOST_SAMPLES,
    NULL,
    NUMBERS,
    ONE_OF,
    ROWS,
    ForecastRequest,
    MultiStepRequest,
)

Body = TypeVar("Body", bound=ForecastRequest)
Place = tuple[int | str, ...]

_LONGEST_NAME: Final = 64
# Only objects with hundreds of thousands of unknown fields have more faults, and listing those would take seconds.
_FAULTS_WORTH_LISTING: Final = 200_000
# What the parser reads for sure; of lists alone it takes one level more. No request has more than four.
DEEPEST_NESTING: Final = 200
# Of whole numbers, for the parser reads those in full; a number with a fraction may have any.
_MOST_DIGITS: Final = 4300
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# Bytes from which on a body may hold so many lists that the collector of cycles would run because of it.
_WORTH_NO_COLLECTION: Final = 16_384
# How deep in a place the label of the kind stands: /window/<kind>, /windows/3/<kind>, /origin/<kind>, ….
_LABEL_AT: Final = {"window": 1, "windows": 2, "future": 1, "futures": 2, "origin": 1}

NO_WINDOWS: Final = "must hold at least one window"
EMPTY_WINDOW: Final = "must hold at least one step"
EMPTY_ROW: Final = "must hold one number for each feature"
EMPTY_ROW_OF_FUTURE: Final = "must hold one number for each exogenous column"
NO_ROW: Final = "must be a row of numbers, as the steps before it are"
IN_JSON: Final = "goes with JSON only, as body and as answer: send the request as JSON, or leave it out"
FIELDS: Final = {
    "window": "must be a window: a list of numbers, or a list of rows of numbers",
    "windows": "must be a list of windows",
    "future": "must be the future of the model's exogenous columns: a list of numbers, or a list of rows of numbers",
    "futures": "must be a list with a future for each window",
    "model": "must be a model's name as text: letters, digits, '.', '_' and '-', at most 64 of them",
    "version": 'must be a version as text: digits in quotes, such as "1", or "stable", "canary" or "shadow"',
    "origin": "must be an ISO 8601 date or time as text, or a list of them",
    "frequency": "must be a frequency as text, such as h, 15min, D, W, M, Q or Y",
    "levels": f"must be a list of 1 to {MOST_LEVELS} different numbers above 0 and below 100, such as [80, 95]",
    "samples": f"must be a whole number from 1 to {MOST_SAMPLES}, without quotes or a decimal point",
    "seed": f"must be a whole number from 0 to {LARGEST_SEED}, without quotes or a decimal point",
    "horizon": "must be a whole number of steps, 1 or more, without quotes or a decimal point",
}
LEVEL: Final = "must be a number above 0 and below 100: a coverage in percent, such as 80"
NUMBER: Final = {
    "float_type": "must be a number: text, true, false, null, lists and objects are not (fill a missing step, for "
    "instance linearly)",
    "finite_number": "must be a finite number: NaN and infinities are not",
    "greater_than_equal": f"must be a number from {-LARGEST_NUMBER:g} to {LARGEST_NUMBER:g}, which 32-bit floats hold",
    "less_than_equal": f"must be a number from {-LARGEST_NUMBER:g} to {LARGEST_NUMBER:g}, which 32-bit floats hold",
}


_ONLY_IN_JSON: Final = ("levels", "samples", "seed")


class _Story(NamedTuple):
    """One fault as pydantic tells it, with the label taken out of its place."""

    union: Place
    label: str
    rest: Place
    kind: str
    field: str
    """For a null, the field's name; pydantic gives no place to what a whole object says."""


def parse(schema: TypeAdapter[Body], body: bytes) -> Body:
    """Read `body` as JSON and check it against `schema`, both at once.

    Raises:
        UnreadableBody: it is not JSON, or nests too deep; the message gives line and column where there are such.
        InvalidRequest: it is JSON, but not such as `schema` describes; the first 20 faults are told.
    """
    if len(body) < _WORTH_NO_COLLECTION:
        return _parse(schema, body)
    with _collector_at_rest():
        return _parse(schema, body)


def _parse(schema: TypeAdapter[Body], body: bytes) -> Body:
    try:
        return schema.validate_json(body)
    except ValidationError as error:
        if error.error_count() > _FAULTS_WORTH_LISTING:
            raise InvalidRequest([Fault("", "holds too many fields that are not known: send the known ones")]) from None
        details = error.errors(include_url=False, include_input=False)
    if details[0]["type"] == "json_invalid":
        raise UnreadableBody(_unreadable(body, details[0]["ctx"]["error"]))
    raise InvalidRequest(list(islice(_faults(details), FAULTS_AT_MOST)))


def check(schema: TypeAdapter[Body], fields: Mapping[str, object]) -> Body:
    """Check fields that came in another format than JSON against `schema`.

    Raises:
        InvalidRequest: they are not such as `schema` describes; the first 20 faults are told.
    """
    if only_json := [name for name in _ONLY_IN_JSON if name in fields]:
        raise InvalidRequest([Fault(pointer_to((name,)), IN_JSON) for name in only_json])
    try:
        return schema.validate_python(fields)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    raise InvalidRequest(list(islice(_faults(details), FAULTS_AT_MOST)))


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Keep the collector of cycles from running meanwhile.

    JSON holds no cycles, and in a body of a million lists the collector would look at each of them again and again:
    that takes longer than all the rest, and everybody waits for it.
    """
    was_at_work = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_at_work:
            gc.enable()


def _unreadable(body: bytes, reason: str) -> str:
    """Say why a body cannot be read as JSON; `reason` is the parser's, with line and column."""
    if not body.strip():
        return 'the body is empty: send a JSON object, such as {"window": [1, 2, 3]}'
    if body.startswith(_BYTE_ORDER_MARK):
        return "the body begins with a byte order mark: send it without one"
    if body.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in body[:4]:
        return "the body is not UTF-8: send it in that encoding"
    kind, at, place = reason.rpartition(" at line ")
    if kind == "recursion limit exceeded":
        return f"the body nests too deep{at}{place}: at most {DEEPEST_NESTING} levels of lists and objects are read"
    if kind == "number out of range":
        return f"the body has a number that is too long{at}{place}: at most {_MOST_DIGITS} digits are read"
    return f"the body is not JSON: {reason}"


def pointer_to(place: Place) -> str:
    """The JSON pointer (RFC 6901) of a place in the body."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in place)


def _faults(details: Sequence[ErrorDetails]) -> Iterator[Fault]:
    for union, told in groupby((_story(detail) for detail in details), key=lambda story: story.union):
        for story in _fitting(list(told)):
            yield _fault(union + story.rest, story)


def _story(detail: ErrorDetails) -> _Story:
    place, kind = detail["loc"], detail["type"]
    field = str(detail.get("ctx", {}).get("field", ""))
    at = _LABEL_AT.get(str(place[0]), len(place)) if place else 0
    if at >= len(place):
        return _Story(place, "", (), kind, field)
    return _Story(place[:at], str(place[at]), place[at + 1 :], kind, field)


def _fitting(stories: Sequence[_Story]) -> Iterable[_Story]:
    """Of the stories about one value, those of the kind that it was meant to be."""
    by_label = {label: [story for story in stories if story.label == label] for label in {s.label for s in stories}}
    if ROWS in by_label:
        story = by_label[ROWS][0]
        meant_rows = story.rest != () and not (story.rest == (0,) and story.kind == "list_type")
        return by_label[ROWS] if meant_rows else by_label[NUMBERS]
    if EACH in by_label:
        return [story for story in by_label[EACH] if story.rest] or stories[:1]
    return stories


def _fault(place: Place, story: _Story) -> Fault:
    if story.kind == NULL:
        return Fault(pointer_to((story.field,)), "must not be null: leave it out")
    if not place:
        return Fault("", _of_the_whole(story.kind))
    name = str(place[0])
    if story.kind == "extra_forbidden":
        return unknown_field(name)
    if story.kind == "missing":
        return Fault(pointer_to(place), f"is required, and {FIELDS[name]}")
    if story.label in (NUMBERS, ROWS):
        return Fault(pointer_to(place), _of_steps("window" if name.startswith("window") else "future", story))
    if name == "windows" and story.kind in ("too_short", "too_long"):
        return Fault("/windows", NO_WINDOWS if story.kind == "too_short" else "holds too many windows")
    if name == "levels" and len(place) > 1:
        return Fault(pointer_to(place), LEVEL)
    return Fault(pointer_to(place), FIELDS[name])


def _of_the_whole(kind: str) -> str:
    if kind == ONE_OF:
        return "must hold either window (one window) or windows (a list of them), and not both"
    return 'must be a JSON object, such as {"window": [1, 2, 3]}'


def _of_steps(name: str, story: _Story) -> str:
    """What is wrong with a window, or a future."""
    depth = len(story.rest)
    if depth == 0:
        return EMPTY_WINDOW if story.kind == "too_short" else FIELDS[name]
    if story.label == ROWS and depth == 1:
        if story.kind == "too_short":
            return EMPTY_ROW if name == "window" else EMPTY_ROW_OF_FUTURE
        return NO_ROW
    return NUMBER.get(story.kind, NUMBER["float_type"])


def unknown_field(name: str, known: Iterable[str] = FIELDS) -> Fault:
    """The fault of a field that no request has, with the nearest of those that there are."""
    if len(name) > _LONGEST_NAME:
        return Fault("", "holds a field whose name is very long and not known: leave it out")
    if name in MultiStepRequest.model_fields and name in known:
        return Fault(
            pointer_to((name,)), "is a field of POST /forecast/multi-step only: send it there, or leave it out"
        )
    near = get_close_matches(name, list(known), n=1)
    mend = f"did you mean {near[0]}?" if near else "leave it out"
    return Fault(pointer_to((name,)), f"is no field of this request: {mend}")
