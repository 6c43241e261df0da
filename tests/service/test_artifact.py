"""The contract: metadata that is read whole or refused by its place, and graphs held against it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifact import LONGEST_CONTEXT, METADATA_KEY, ErrorTable, Metadata, Tensor, check_graph, read_metadata
from service.errors import ArtifactError
from tests.artifacts import build_metadata

VALUES = Tensor("values", "float32", (None, None, 2))
STATE = Tensor("state", "float32", (None, 3))
FORECAST = Tensor("forecast", "float32", (None, 2))
NEXT_STATE = Tensor("next_state", "float32", (None, 3))
SCALE = Tensor("scale", "float32", (None, 2))


def properties(**changes: object) -> dict[str, str]:
    document = json.loads(build_metadata().model_dump_json())
    return {METADATA_KEY: json.dumps(document | changes)}


def read_fault(**changes: object) -> str:
    with pytest.raises(ArtifactError) as caught:
        read_metadata(properties(**changes))
    return str(caught.value)


def graph_fault(metadata: Metadata, inputs: list[Tensor], outputs: list[Tensor]) -> str:
    with pytest.raises(ArtifactError) as caught:
        check_graph(metadata, inputs, outputs)
    return str(caught.value)


@given(
    features=st.integers(1, 5),
    context_length=st.integers(2, LONGEST_CONTEXT),
    frequency=st.sampled_from([None, "h", "15min", "W"]),
    season_length=st.none() | st.integers(2, 400),
)
def test_metadata_that_was_written_is_read_back_equal(
    features: int, context_length: int, frequency: str | None, season_length: int | None
) -> None:
    written = build_metadata(
        features=features, context_length=context_length, frequency=frequency, season_length=season_length
    )
    assert read_metadata({METADATA_KEY: written.model_dump_json(), "other": "ignored"}) == written


def test_a_file_without_metadata_is_told_how_to_get_some() -> None:
    with pytest.raises(ArtifactError, match=r"no metadata under the key 'leadtime': write it with `python -m training"):
        read_metadata({"author": "somebody"})


def test_another_contract_version_is_refused_by_the_version_read() -> None:
    assert read_fault(contract=2) == "this service reads contract version 1 only"


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        pytest.param({"context_length": 0}, "context_length", id="context of no steps"),
        pytest.param({"context_length": LONGEST_CONTEXT + 1}, "context_length", id="context beyond all windows"),
        pytest.param({"features": []}, "features", id="no features"),
        pytest.param({"features": ["a", "a"]}, "features", id="feature names repeat"),
        pytest.param({"frequency": "fortnight"}, "frequency", id="unknown frequency"),
        pytest.param({"season_length": 1}, "season_length", id="season of one step"),
        pytest.param({"name": "../secret"}, "name", id="name that leaves its folder"),
        pytest.param({"version": "0"}, "version", id="version zero"),
        pytest.param({"contxt_length": 8}, "contxt_length", id="misspelt field"),
        pytest.param({"training": {}}, "training.created", id="missing field within"),
    ],
)
def test_a_wrong_field_is_refused_by_its_place(changes: dict[str, Any], place: str) -> None:
    assert read_fault(**changes).startswith(f"its metadata is wrong at {place}: ")


def test_metadata_that_is_not_json_is_refused_as_a_whole() -> None:
    with pytest.raises(ArtifactError, match=r"^its metadata is wrong at document: Invalid JSON"):
        read_metadata({METADATA_KEY: "{"})


def test_a_minimum_window_above_the_context_is_a_contradiction_naming_both() -> None:
    assert read_fault(minimum_window=9).endswith("minimum_window 9 is above context_length 8")


def test_an_error_table_for_other_features_is_a_contradiction() -> None:
    table = ErrorTable(origins=1, errors=(((0.0,),), ((0.0,),)))
    assert read_fault(errors=table.model_dump()).endswith("errors for 2 features, but it has 1")


def test_an_error_table_without_errors_is_a_contradiction() -> None:
    table = ErrorTable(origins=1, errors=(((), ()),))
    assert read_fault(errors=table.model_dump()).endswith("the error table holds no errors")


def test_an_error_table_whose_features_reach_differently_far_is_a_contradiction() -> None:
    table = ErrorTable(origins=1, errors=(((0.0,),), ((0.0,), (0.0,))))
    assert read_fault(features=["a", "b"], errors=table.model_dump()).endswith("features differ in lead times")


def test_an_error_table_is_an_array_of_errors_by_lead_times_by_features() -> None:
    table = ErrorTable(origins=2, errors=(((2.0, 1.0), (3.0, 4.0)),), paths=True)
    assert table.array.tolist() == [[[2], [3]], [[1], [4]]]
    assert table.ranked.tolist() == [[[1], [3]], [[2], [4]]]
    assert ErrorTable.model_validate_json(table.model_dump_json()) == table


def test_what_intervals_need_may_be_missing_from_a_file() -> None:
    older = build_metadata(errors=ErrorTable(origins=1, errors=(((0.0,),),))).model_dump()
    del older["non_negative"], older["errors"]["paths"]
    metadata = read_metadata({METADATA_KEY: json.dumps(older)})
    assert metadata.non_negative is False
    assert metadata.errors is not None
    assert metadata.errors.paths is False


def test_an_error_table_of_ragged_rows_is_a_contradiction() -> None:
    table = ErrorTable(origins=2, errors=(((0.0, 1.0), (0.0,)),))
    assert read_fault(errors=table.model_dump()).endswith("the error table's rows differ in length")


def test_a_graph_that_keeps_its_promises_is_accepted() -> None:
    metadata = build_metadata("drift", features=2)
    check_graph(metadata, [VALUES, STATE], [FORECAST, NEXT_STATE, SCALE])
    check_graph(metadata, [STATE, VALUES], [NEXT_STATE, FORECAST])
    check_graph(build_metadata("mean", features=2), [VALUES], [FORECAST])


def test_a_dimension_that_the_graph_leaves_free_fits_any_size() -> None:
    free = [Tensor(tensor.name, "float32", (None,) * len(tensor.shape)) for tensor in (VALUES, STATE)]
    check_graph(build_metadata("drift", features=2), free, [FORECAST, NEXT_STATE])


@pytest.mark.parametrize(
    ("inputs", "outputs", "fault"),
    [
        pytest.param([VALUES], [FORECAST, NEXT_STATE], "input 'state' is missing", id="missing input"),
        pytest.param([VALUES, STATE], [FORECAST], "output 'next_state' is missing", id="missing output"),
        pytest.param(
            [VALUES, STATE, Tensor("mask", "bool", (None,))],
            [FORECAST, NEXT_STATE],
            "input 'mask' is not in the contract",
            id="unknown input",
        ),
        pytest.param(
            [Tensor("values", "float64", (None, None, 2)), STATE],
            [FORECAST, NEXT_STATE],
            "input 'values' is float64 (any, any, 2), but must be float32 (any, any, 2)",
            id="wrong type",
        ),
        pytest.param(
            [Tensor("values", "float32", (None, 8, 2)), STATE],
            [FORECAST, NEXT_STATE],
            "input 'values' is float32 (any, 8, 2), but must be float32 (any, any, 2)",
            id="fixed time",
        ),
        pytest.param(
            [VALUES, STATE],
            [Tensor("forecast", "float32", (None, 1, 2)), NEXT_STATE],
            "output 'forecast' is float32 (any, 1, 2), but must be float32 (any, 2)",
            id="wrong rank",
        ),
    ],
)
def test_a_graph_that_breaks_its_promises_is_refused_naming_the_tensor(
    inputs: list[Tensor], outputs: list[Tensor], fault: str
) -> None:
    message = graph_fault(build_metadata("drift", features=2), inputs, outputs)
    assert message == f"its graph is not what its metadata promises: {fault}"


def test_all_differences_are_named_at_once() -> None:
    message = graph_fault(build_metadata("drift", features=2), [], [SCALE])
    assert message.count("is missing") == 4


def test_an_error_table_needs_a_graph_that_tells_the_scale() -> None:
    table = ErrorTable(origins=1, errors=(((0.0,),),))
    metadata = build_metadata("mean", errors=table)
    one = Tensor("values", "float32", (None, None, 1))
    forecast = Tensor("forecast", "float32", (None, 1))
    assert graph_fault(metadata, [one], [forecast]).endswith("output 'scale' is missing")


def test_files_of_before_there_were_known_inputs_are_read_as_without_any() -> None:
    older = build_metadata().model_dump()
    del older["calendar"], older["exogenous"]
    metadata = read_metadata({METADATA_KEY: json.dumps(older)})
    assert (metadata.calendar, metadata.exogenous, metadata.known) == ((), (), 0)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        pytest.param({"calendar": ["minute"]}, "its metadata is wrong at calendar.0: ", id="unknown field"),
        pytest.param({"calendar": ["hour", "hour"]}, "its metadata is wrong at calendar: ", id="repeated field"),
        pytest.param({"exogenous": ["price", "price"]}, "its metadata is wrong at exogenous: ", id="repeated column"),
        pytest.param({"exogenous": ["x0"]}, "'x0' is both a feature and exogenous", id="a feature"),
        pytest.param({"calendar": ["hour"]}, "but has no frequency to tell the times of steps by", id="no frequency"),
    ],
)
def test_known_inputs_that_cannot_be_are_refused(changes: dict[str, Any], fault: str) -> None:
    assert fault in read_fault(**changes)


def test_files_of_before_there_were_trials_are_read_as_without_one() -> None:
    older = build_metadata().model_dump()
    del older["trial"]
    assert read_metadata({METADATA_KEY: json.dumps(older)}).trial is None


@pytest.mark.parametrize(
    ("trial", "fault"),
    [
        pytest.param({"window": [[1], [2]], "forecast": []}, "wrong at trial.forecast: ", id="no forecast"),
        pytest.param({"window": [[1], [1e39]], "forecast": [[3]]}, "wrong at trial.window.1.0: ", id="beyond floats"),
        pytest.param({"window": [[1], [2, 3]], "forecast": [[3]]}, "not of its 1 features", id="ragged"),
        pytest.param({"window": [[1]], "forecast": [[3]]}, "shorter than minimum_window", id="short"),
        pytest.param({"window": [[1], [2]], "known": [[1], [1]], "forecast": [[3]]}, "known steps", id="known"),
    ],
)
def test_a_trial_that_cannot_be_is_refused(trial: dict[str, Any], fault: str) -> None:
    assert fault in read_fault(trial=trial)


def test_a_graph_must_take_as_many_known_numbers_as_its_metadata_name() -> None:
    metadata = build_metadata("drift", features=2, calendar=("hour",), exogenous=("price",), frequency="h")
    known = Tensor("known", "float32", (None, None, 2))
    check_graph(metadata, [VALUES, STATE, known], [FORECAST, NEXT_STATE])
    assert graph_fault(metadata, [VALUES, STATE], [FORECAST, NEXT_STATE]).endswith("input 'known' is missing")
    wide = Tensor("known", "float32", (None, None, 3))
    assert graph_fault(metadata, [VALUES, STATE, wide], [FORECAST, NEXT_STATE]).endswith(
        "input 'known' is float32 (any, any, 3), but must be float32 (any, any, 2)"
    )
    plain = build_metadata("drift", features=2)
    assert graph_fault(plain, [VALUES, STATE, known], [FORECAST, NEXT_STATE]).endswith(
        "input 'known' is not in the contract"
    )
