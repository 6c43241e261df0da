"""Reading series: what is inferred, sorted, filled and cut, and how they are split."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.training.tables import hourly, long_form, values, write
from training.config import Config, Data, Network
from training.data import read_panel
from training.datasets import DATASETS, load
from training.errors import DataError
from training.panel import Panel
from training.parts import rows_needed, split, suited
from training.table import Table, read_table

_SMALL = Network(context_length=8)


def as_table(frame: pd.DataFrame) -> Table:
    frame = frame.copy()
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return Table(frame, "test", "row")


def panel_of(frame: pd.DataFrame, **data: object) -> Panel:
    return read_panel(as_table(frame), Config(data=Data.model_validate({"horizon": 4, **data}), network=_SMALL))


def only(panel: Panel) -> npt.NDArray[np.float64]:
    """The values of a panel of one series and one feature."""
    assert len(panel.series) == 1
    assert len(panel.features) == 1
    return panel.series[0].values[:, 0]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "with a byte-order mark"])
def test_any_usual_csv_is_read(delimiter: str, mark: str, tmp_path: Path) -> None:
    text = hourly(300).to_csv(index=False, sep=delimiter, quoting=2)
    (tmp_path / "data.csv").write_text(mark + text, encoding="utf-8")
    panel = read_panel(read_table(tmp_path / "data.csv"), Config(network=_SMALL))
    assert panel.features == ("load",)
    assert (panel.frequency, panel.season) == ("h", 24)
    assert np.array_equal(only(panel), values(300))


@pytest.mark.parametrize(
    "frame",
    [hourly(300), hourly(300).set_index("time"), hourly(300).set_index("time", drop=False)],
    ids=["as a column", "as the index", "as both"],
)
def test_parquet_is_read_with_its_time(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_parquet(tmp_path / "data.parquet")
    panel = read_panel(read_table(tmp_path / "data.parquet"), Config(network=_SMALL))
    assert (panel.frequency, panel.season) == ("h", 24)
    assert np.array_equal(only(panel), values(300))


def test_several_targets_make_features_in_the_order_named() -> None:
    frame = hourly(300).assign(wind=values(300, 1))
    panel = panel_of(frame, target=("wind", "load"))
    assert panel.features == ("wind", "load")
    assert np.array_equal(panel.series[0].values, frame[["wind", "load"]].to_numpy())


def test_a_column_of_lists_is_neither_a_time_nor_a_target(tmp_path: Path) -> None:
    frame = hourly(100)
    frame["when"] = pd.Series([[1, 2]] * 100, dtype=object)
    frame.to_parquet(tmp_path / "data.parquet")
    table = read_table(tmp_path / "data.parquet")
    assert read_panel(table, Config(data=Data(target=("load",)), network=_SMALL)).features == ("load",)
    with pytest.raises(DataError, match="column 'when' holds lists, not single values"):
        read_panel(table, Config(data=Data(target=("load",), time="when"), network=_SMALL))


def test_series_in_long_form_are_told_apart_and_keep_their_order() -> None:
    frame = long_form(100).sample(frac=1, random_state=0)
    panel = panel_of(frame, target=("load",), series="site")
    assert sorted(one.name for one in panel.series) == ["site-0", "site-1", "site-2"]
    for one in panel.series:
        assert np.array_equal(one.values[:, 0], values(100, int(one.name[-1])))


def test_short_series_are_left_out_where_that_is_asked_for() -> None:
    frame = long_form(100).drop(index=range(210, 300))
    panel = panel_of(frame, target=("load",), series="site", skip_short=True)
    assert [one.name for one in panel.series] == ["site-0", "site-1"]
    assert any("1 of 3 series were left out" in note for note in panel.notes)


def test_without_a_time_column_rows_are_steps_and_the_notes_say_so() -> None:
    panel = panel_of(hourly(100)[["load"]])
    assert (panel.frequency, panel.season, panel.series[0].times) == (None, None, None)
    assert any("in the order of the file" in note for note in panel.notes)


def test_a_column_that_counts_steps_finds_gaps_but_no_frequency() -> None:
    frame = pd.DataFrame({"step": np.arange(0, 1000, 10), "load": values(100)}).drop(index=[50])
    panel = panel_of(frame, target=("load",), time="step")
    assert panel.frequency is None
    assert len(only(panel)) == 100
    assert only(panel)[50] == pytest.approx((values(100)[49] + values(100)[51]) / 2)


def test_counted_steps_take_the_frequency_that_is_named() -> None:
    frame = pd.DataFrame({"step": np.arange(100), "load": values(100)})
    panel = panel_of(frame, target=("load",), time="step", frequency="h")
    assert (panel.frequency, panel.season) == ("h", 24)


def test_a_missing_value_is_filled_linearly_and_counted_in_the_notes() -> None:
    frame = hourly(100)
    frame.loc[[10, 11], "load"] = np.nan
    panel = panel_of(frame)
    before, after = frame["load"][9], frame["load"][12]
    assert only(panel)[10:12] == pytest.approx([before + (after - before) / 3, before + 2 * (after - before) / 3])
    assert any("2 missing values were filled" in note for note in panel.notes)


def test_words_and_signs_for_a_missing_value_are_named_in_the_notes_and_empty_cells_are_not() -> None:
    frame = hourly(100).astype(object)
    frame.loc[[10, 20, 30, 40], "load"] = ["n/a", "-", "N/A", ""]
    (note,) = (note for note in panel_of(frame).notes if "taken as missing" in note)
    assert note == "cells taken as missing values: 3, such as 'n/a' or '-'"


def test_empty_ends_are_cut_off_not_filled() -> None:
    frame = hourly(100)
    frame.loc[[*range(10), *range(90, 100)], "load"] = np.nan
    panel = panel_of(frame)
    assert np.array_equal(only(panel), values(100)[10:90])
    assert panel.series[0].times is not None
    assert panel.series[0].times[0] == frame["time"][10]


def test_working_days_have_a_season_of_five_and_no_gaps_at_weekends() -> None:
    days = pd.bdate_range("2024-01-01", periods=150).delete([40, 90])  # two holidays
    panel = panel_of(pd.DataFrame({"day": days, "load": values(148)}))
    assert (panel.frequency, panel.season) == (None, 5)
    assert np.array_equal(only(panel), values(148))


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_can_be_read(name: str) -> None:
    table, target = load(name)
    config = Config(data=Data(target=(target,), fill_limit=18, horizon=4), network=_SMALL)
    panel = read_panel(table, config)
    assert split(panel, config).horizon == 4
    assert panel.frequency in {"W", "M", "Q", "Y"}


@given(order=st.permutations(range(60)))
@settings(max_examples=50)
def test_rows_in_any_order_make_the_same_series(order: list[int]) -> None:
    frame = hourly(60)
    assert panel_of(frame.iloc[order]).digest == panel_of(frame).digest


@given(removed=st.sets(st.integers(1, 58), max_size=25), limit=st.integers(0, 6))
@settings(max_examples=100)
def test_gaps_up_to_the_limit_are_filled_on_the_grid_and_longer_ones_refused(removed: set[int], limit: int) -> None:
    whole = pd.DataFrame({"time": pd.date_range("2024-01-01", periods=60, freq="h"), "load": np.arange(60.0)})
    kept = [step for step in range(60) if step not in removed]
    longest = int(np.max(np.diff(kept))) - 1
    frame = whole.iloc[kept]
    if longest > limit:
        with pytest.raises(DataError, match=f"--fill-limit {longest} "):
            panel_of(frame, frequency="h", fill_limit=limit)
    else:
        panel = panel_of(frame, frequency="h", fill_limit=limit)
        assert only(panel) == pytest.approx(np.arange(60.0))
        assert panel.series[0].times is not None
        assert list(panel.series[0].times) == list(whole["time"])


@given(
    rows=st.integers(30, 2000),
    horizon=st.integers(1, 60),
    context=st.integers(1, 300),
    shares=st.tuples(st.floats(0.01, 0.45), st.floats(0.01, 0.45)),
)
@settings(max_examples=200)
def test_parts_follow_each_other_in_time_and_each_has_room(
    rows: int, horizon: int, context: int, shares: tuple[float, float]
) -> None:
    data = Data(horizon=horizon, validation_share=shares[0], test_share=shares[1])
    config = Config(data=data, network=Network(context_length=context))
    frame = pd.DataFrame({"load": np.arange(rows) % 7 + np.arange(rows) / 10})
    try:
        panel = read_panel(as_table(frame), config)
    except DataError:
        # Refused only where a part of it would have no room.
        assert rows < context + horizon + 2 + sum(max(round(rows * share), horizon + 1) for share in shares)
        return
    (part,) = split(panel, config).boundaries
    assert context + horizon < part.train_end < part.validation_end < rows
    assert part.validation_end - part.train_end > horizon
    assert rows - part.validation_end > horizon


def test_the_number_of_rows_that_a_message_asks_for_is_enough_and_one_less_is_not() -> None:
    config = Config(data=Data(horizon=24), network=Network(context_length=192))
    enough = as_table(hourly(271))
    assert len(split(read_panel(enough, config), config).boundaries) == 1
    with pytest.raises(DataError, match="need 271"):
        read_panel(as_table(hourly(270)), config)


@given(rows=st.integers(30, 400), horizon=st.integers(1, 30), context=st.integers(2, 300))
@settings(max_examples=100)
@example(rows=275, horizon=24, context=195)  # 274 rows would do, for the shares of 275 are rounded up
def test_a_message_asks_for_more_rows_than_there_are_and_for_no_more_than_needed(
    rows: int, horizon: int, context: int
) -> None:
    config = Config(data=Data(horizon=horizon), network=Network(context_length=context))
    try:
        read_panel(as_table(hourly(rows)), config)
    except DataError as error:
        found = re.search(r"need (\d+) to train", str(error))
        assert found
        needed = int(found[1])
        enough = [length for length in range(rows, needed + 1) if length >= rows_needed(length, horizon, config)]
        assert enough == [needed]
        assert needed > rows


def test_the_digest_tells_values_times_and_names_apart() -> None:
    frame = hourly(100)
    changed = frame.assign(load=frame["load"] + (frame.index == 50) * 1e-9)
    later = frame.assign(time=frame["time"] + pd.Timedelta(hours=1))
    renamed = frame.rename(columns={"load": "power"})
    digests = {panel_of(one).digest for one in (frame, changed, later, renamed)}
    assert len(digests) == 4
    assert panel_of(frame.copy()).digest in digests


def test_line_numbers_are_those_of_the_file_whatever_it_holds_between(tmp_path: Path) -> None:
    text = 'time,note,load\n2024-01-01,"two\nlines",1\n\n2024-01-02,,x\n'
    (tmp_path / "data.csv").write_text(text)
    with pytest.raises(DataError, match="line 5, column 'load'"):
        read_table(tmp_path / "data.csv").numbers("load")


def test_a_csv_and_its_parquet_have_one_digest(tmp_path: Path) -> None:
    frame = hourly(100)
    frame.to_parquet(tmp_path / "data.parquet")
    config = Config(data=Data(horizon=4), network=_SMALL)
    digests = {
        read_panel(read_table(path), config).digest
        for path in (tmp_path / "data.parquet", write(frame, tmp_path / "data.csv"))
    }
    assert len(digests) == 1


def test_a_context_that_was_not_asked_for_gives_way_where_series_are_short() -> None:
    usual, short = suited(Config(), 5000, 12), suited(Config(), 144, 12)

    assert usual.network.context_length == 192
    assert 12 < short.network.context_length < 144 * 0.8
    assert rows_needed(144, 12, short) < 144


def test_a_context_gives_way_no_further_than_to_what_an_autoregression_sees() -> None:
    given = {"network": {"output": "horizon"}, "ensemble": {"autoregression": 130}}
    config = Config.model_validate(given)

    assert suited(config, 250, None).network.context_length == 130
    assert suited(Config.model_validate({"network": {"output": "horizon"}}), 250, None).network.context_length < 130


def test_a_context_that_was_asked_for_stays() -> None:
    config = Config(network=Network(context_length=192))

    assert suited(config, 144, 12) is config


def test_parts_counted_in_steps_are_the_same_for_every_series_whatever_its_length() -> None:
    longer = hourly(700, 1).assign(site="longer")
    frame = pd.concat([hourly(600).assign(site="shorter"), longer], ignore_index=True)
    config = Config(
        data=Data(target=("load",), series="site", horizon=48, test_steps=48, validation_steps=96),
        network=Network(context_length=48),
    )

    parts = split(read_panel(as_table(frame), config), config)

    assert parts.boundaries == ((600 - 144, 600 - 48), (700 - 144, 700 - 48))


def test_a_part_in_steps_has_room_for_a_horizon() -> None:
    config = Config(data=Data(horizon=24, test_steps=3), network=Network(context_length=48))

    (part,) = split(read_panel(as_table(hourly()), config), config).boundaries

    assert part.validation_end == 600 - 24


def test_logarithms_are_refused_for_series_that_are_not_above_zero_throughout() -> None:
    config = Config(network=Network(context_length=48, transform="log"))
    frame = hourly()
    frame.loc[7, "load"] = 0.0

    read_panel(as_table(hourly()), config)
    with pytest.raises(DataError, match=r"column 'load' goes down to 0, and network\.transform = 'log' needs"):
        read_panel(as_table(frame), config)


def test_a_scaling_by_the_season_is_refused_where_none_is_known() -> None:
    config = Config(network=Network(context_length=48, scaling="season"))
    counted = pd.DataFrame({"load": values(600)})

    with pytest.raises(DataError, match=r"network\.scaling = 'season' needs a season, and none is known"):
        read_panel(as_table(counted), config)
