"""Bodies that are parsed, or refused with the places that are at fault."""

import gc
import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from service.api.faults import DEEPEST_NESTING, parse, pointer_to
from service.errors import Fault, InvalidRequest, UnreadableBody
from service.schemas import FAULTS_AT_MOST, LARGEST_NUMBER, ForecastRequest, MultiStepRequest

ONE_STEP = TypeAdapter(ForecastRequest)
MULTI_STEP = TypeAdapter(MultiStepRequest)

numbers = st.floats(-LARGEST_NUMBER, LARGEST_NUMBER) | st.integers(-(2**40), 2**40)
windows = st.lists(numbers, min_size=1, max_size=8) | st.lists(
    st.lists(numbers, min_size=1, max_size=3), min_size=1, max_size=8
)
values = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5) | st.integers() | st.floats() | windows,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
names = st.sampled_from(sorted(MultiStepRequest.model_fields)) | st.text(max_size=8)
bodies = st.dictionaries(names, values, max_size=5) | values


def refusal(schema: TypeAdapter[Any], document: object) -> list[Fault]:
    """The faults that a document is refused with; none where it is taken."""
    try:
        parse(schema, json.dumps(document).encode())
    except InvalidRequest as error:
        return list(error.faults)
    return []


def leads_somewhere(document: Any, pointer: str) -> bool:
    """Whether an RFC 6901 pointer names a place in the document."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        try:
            document = document[int(key)] if isinstance(document, list) else document[key]
        except (LookupError, TypeError, ValueError):
            return False
    return True


@given(windows)
def test_a_good_window_is_taken_as_it_is(window: list[Any]) -> None:
    assert parse(ONE_STEP, json.dumps({"window": window}).encode()).window == window
    assert parse(ONE_STEP, json.dumps({"windows": [window, window]}).encode()).windows == [window, window]


@given(bodies)
def test_any_json_is_taken_or_refused_with_pointers_that_lead_somewhere(body: Any) -> None:
    faults = refusal(MULTI_STEP, body)
    assert len(faults) <= FAULTS_AT_MOST
    for fault in faults:
        assert leads_somewhere(body, fault.pointer) or fault.pointer == "/horizon", "only what is missing is nowhere"
        assert fault.message


@given(st.binary(max_size=60))
def test_any_bytes_are_taken_or_refused(body: bytes) -> None:
    try:
        taken = parse(ONE_STEP, body)
    except (InvalidRequest, UnreadableBody):
        return
    assert taken.window or taken.windows


bad_elements: st.SearchStrategy[object] = (
    st.none() | st.booleans() | st.text() | st.just([]) | st.just([1.0]) | st.just({}) | st.just(math.inf)
)


@given(st.lists(numbers, min_size=1, max_size=20), bad_elements, st.data())
def test_the_first_bad_number_of_a_window_is_named(window: list[Any], bad: object, data: st.DataObject) -> None:
    place = data.draw(st.integers(1, len(window)))
    document = {"windows": [[1.0], [*window[:place], bad, *window[place:], True]]}
    assert [fault.pointer for fault in refusal(ONE_STEP, document)] == [f"/windows/1/{place}"]


@given(st.lists(st.lists(numbers, min_size=2, max_size=2), min_size=1, max_size=9), st.data())
def test_the_first_bad_number_of_a_row_is_named(rows: list[list[Any]], data: st.DataObject) -> None:
    step, feature = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, 1))
    rows[step][feature] = "1"
    assert [fault.pointer for fault in refusal(ONE_STEP, {"window": rows})] == [f"/window/{step}/{feature}"]


def test_a_pointer_escapes_what_rfc_6901_escapes() -> None:
    assert pointer_to(("a/b", "m~n", 3, "")) == "/a~1b/m~0n/3/"
    assert pointer_to(()) == ""


@pytest.mark.parametrize("body", ["[" * 200 + "]" * 200, '{"a":' * 200 + "1" + "}" * 200], ids=["lists", "objects"])
def test_nesting_is_read_down_to_the_depth_that_is_promised(body: str) -> None:
    assert DEEPEST_NESTING == 200
    with pytest.raises(InvalidRequest):
        parse(ONE_STEP, body.encode())


@pytest.mark.parametrize("body", ['{"window": [1, 2]}', "[", "[]"], ids=["good", "unreadable", "bad"])
@pytest.mark.parametrize("at_work", [True, False], ids=["collector at work", "collector at rest"])
def test_parsing_leaves_the_collector_of_cycles_as_it_was(body: str, at_work: bool) -> None:
    (gc.enable if at_work else gc.disable)()
    try:
        with suppress(InvalidRequest, UnreadableBody):
            parse(ONE_STEP, body.encode())
        assert gc.isenabled() is at_work
    finally:
        gc.enable()


def test_the_collector_of_cycles_never_runs_while_a_body_is_parsed() -> None:
    body = '{"window": [' + ",".join(["[1]"] * 100_000) + "]}"
    before = [generation["collections"] for generation in gc.get_stats()]
    request = parse(ONE_STEP, body.encode())
    # leaving the block may let one run, of the youngest alone
    assert gc.get_stats()[0]["collections"] - before[0] <= 1
    assert gc.get_stats()[2]["collections"] == before[2]
    assert request.window is not None
