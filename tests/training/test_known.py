"""Known inputs from the table to the forecast: read, cut, learnt from, exported, and answered with."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact import FILE_NAME, CalendarFields
from service.calendar import calendar_of
from service.engine import Engine
from service.schemas import MultiStepRequest
from service.timestamps import Frequency, parse_origin, wall_clock
from tests.contract.conftest import metadata_of
from tests.end_to_end.process import running
from tests.training.tables import hourly, write
from tests.training.test_fit import Quiet
from training import synthetic
from training.__main__ import main
from training.calibration import error_table
from training.config import Config, Data, Network, Output, read_config
from training.data import read_any_length, read_panel
from training.ensemble import Ensemble
from training.errors import ConfigError, DataError
from training.export import export
from training.fit import fit, unfitted
from training.known import Known
from training.model import Forecaster
from training.panel import Panel
from training.parts import known_of, split
from training.rolling import Terms, read_for, run
from training.table import Table, read_table
from training.windows import Windows

FIELDS: CalendarFields = ("hour", "weekday", "day_of_month", "month", "day_of_year")
Floats = npt.NDArray[np.float32]


def shop(days: int = 700) -> pd.DataFrame:
    """Daily sales that promotions and a price lift, none of which the past tells of."""
    rng = np.random.default_rng(0)
    promotion = (rng.random(days) < 0.25).astype(int)
    price = 10 + rng.normal(0, 1, days).round(2)
    sales = 40 + 12 * promotion - 4 * (price - 10) + rng.normal(0, 1, days)
    times = pd.date_range("2022-01-01", periods=days, freq="D")
    return pd.DataFrame({"day": times, "sales": sales.round(2), "price": price, "promotion": promotion})


def paydays(days: int = 900) -> pd.DataFrame:
    """Daily values that jump on the first and the fifteenth of each month."""
    times = pd.date_range("2022-01-01", periods=days, freq="D")
    jump = 10.0 * times.day.isin([1, 15])
    return pd.DataFrame({"day": times, "value": 20 + jump + np.random.default_rng(1).normal(0, 0.5, days)})


def config(data: dict[str, Any], **network: Any) -> Config:
    small = {"layers": (6,), "context_length": 28, **network}
    fitting = {"epochs": 2, "steps_per_epoch": 4, "batch_size": 8, "warm_up": 5}
    return Config.model_validate({"data": data, "network": small, "fitting": fitting})


def panel_of(frame: pd.DataFrame, path: Path, data: dict[str, Any]) -> Panel:
    return read_any_length(read_table(write(frame, path / "data.csv")), Data.model_validate(data))


def fault_of(frame: pd.DataFrame, path: Path, **data: Any) -> str:
    with pytest.raises(DataError) as caught:
        panel_of(frame, path, data)
    return str(caught.value)


# --- what is read ---------------------------------------------------------------------------------------------------


def test_the_calendar_and_the_columns_are_known_of_each_step(tmp_path: Path) -> None:
    data = {"target": ("sales",), "calendar": ("weekday", "month"), "exogenous": ("promotion", "price")}
    panel = panel_of(shop(100), tmp_path, data)
    table = shop(100)
    assert (panel.calendar, panel.exogenous, panel.features) == (
        ("weekday", "month"),
        ("promotion", "price"),
        ("sales",),
    )
    known = panel.series[0].known
    assert known is not None
    wanted = np.stack((table.day.dt.day_of_week, table.day.dt.month, table.promotion, table.price), axis=1)
    np.testing.assert_allclose(known, wanted, rtol=1e-6)
    assert "known beforehand: the calendar's weekday, the calendar's month, column 'promotion'" in "; ".join(
        panel.notes
    )


def test_missing_values_of_a_column_are_filled_as_those_of_targets_are(tmp_path: Path) -> None:
    table = shop(100)
    table.loc[50, "price"] = np.nan
    known = panel_of(table, tmp_path, {"target": ("sales",), "exogenous": ("price",)}).series[0].known
    assert known is not None
    assert known[50, 0] == pytest.approx((table.price[49] + table.price[51]) / 2)
    table.loc[48:55, "price"] = np.nan
    assert "8 missing steps in a row" in fault_of(table, tmp_path, target=("sales",), exogenous=("price",))


def test_what_is_known_tells_data_apart(tmp_path: Path) -> None:
    digests = {
        panel_of(shop(100), tmp_path, {"target": ("sales",), **more}).digest
        for more in ({}, {"exogenous": ("price",)}, {"exogenous": ("promotion",)}, {"calendar": ("month",)})
    }
    assert len(digests) == 4


ZONES = ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC"]


@settings(max_examples=25, deadline=None)
@given(
    st.datetimes(datetime(1995, 1, 1), datetime(2030, 1, 1)).map(lambda moment: moment.replace(microsecond=0)),
    st.sampled_from(["15min", "h", "6h", "D", "W", "MS", "ME", "QS"]),
    st.sampled_from([None, *ZONES]),
)
def test_training_reads_the_calendar_that_the_service_reads(
    tmp_path_factory: pytest.TempPathFactory, moment: datetime, frequency: str, zone: str | None
) -> None:
    """The steps of a table, from its rows; and the same steps, from the time of its last row."""
    start = pd.Timestamp(moment) if frequency in ("15min", "h", "6h") else pd.Timestamp(moment.date())
    steps = 60
    zoned = zone is not None and frequency in ("15min", "h", "6h")
    if zoned:
        times = pd.date_range(start.tz_localize("UTC"), periods=steps, freq=frequency).tz_convert(zone)
    else:
        times = pd.date_range(start, periods=steps, freq=frequency)
    table = pd.DataFrame({"time": [time.isoformat() for time in times], "x": np.arange(steps) % 7})

    panel = panel_of(table, tmp_path_factory.mktemp("table"), {"calendar": FIELDS})

    assert panel.frequency is not None
    last = times[-1].isoformat() + (f"[{zone}]" if zoned else "")
    clock = wall_clock(parse_origin(last), Frequency.parse(panel.frequency), 1 - steps, 0)
    known = panel.series[0].known
    assert known is not None
    np.testing.assert_allclose(known, calendar_of(clock, FIELDS), rtol=1e-6)


def test_no_time_column_has_no_calendar(tmp_path: Path) -> None:
    message = fault_of(shop().drop(columns="day"), tmp_path, target=("sales",), calendar=("hour",))
    assert message.endswith("--calendar reads a time column, and there is none: name it with --time")


def test_counted_steps_have_no_calendar(tmp_path: Path) -> None:
    table = shop().assign(day=np.arange(700))
    message = fault_of(table, tmp_path, target=("sales",), time="day", calendar=("hour",))
    assert message.endswith("--calendar reads dates, and the time column counts steps: leave it away")


def test_working_days_have_no_calendar(tmp_path: Path) -> None:
    table = shop().assign(day=pd.bdate_range("2022-01-03", periods=700))
    message = fault_of(table, tmp_path, target=("sales",), calendar=("weekday",))
    assert "--calendar needs steps of one frequency, which working days have not" in message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param({"exogenous": ("prize",)}, "there is no column 'prize'; did you mean 'price'?", id="misspelt"),
        pytest.param({"exogenous": ("price", "price")}, "the exogenous column 'price' is named twice", id="twice"),
        pytest.param({"exogenous": ("sales",)}, "'sales' cannot be exogenous and a target", id="the target"),
        pytest.param({"exogenous": ("day",), "time": "day"}, "'day' cannot be exogenous and a target", id="the time"),
        pytest.param({"calendar": ("hour", "hour")}, "the calendar's 'hour' is named twice", id="a field twice"),
    ],
)
def test_columns_and_fields_that_cannot_be_known_are_refused(
    tmp_path: Path, data: dict[str, Any], message: str
) -> None:
    assert message in fault_of(shop(), tmp_path, target=("sales",), **data)


def test_a_column_of_words_or_of_one_value_is_refused(tmp_path: Path) -> None:
    words = shop().assign(price="cheap")
    assert "column 'price': text where a number must be" in fault_of(
        words, tmp_path, target=("sales",), exogenous=("price",)
    )
    flat = shop().assign(price=5)
    assert "the exogenous column 'price' is constant" in fault_of(
        flat, tmp_path, target=("sales",), exogenous=("price",)
    )


def test_an_unknown_field_of_the_calendar_is_refused_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[data]\ncalendar = ["minute"]\n')
    with pytest.raises(ConfigError, match=r"^configuration key data\.calendar: Input should be 'hour'"):
        read_config(tmp_path / "run.toml", {})


@pytest.mark.parametrize("data", [{"calendar": ["hour"]}, {"exogenous": ["price"]}])
def test_a_whole_horizon_at_once_knows_nothing_of_its_steps(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^configuration key network\.output: 'horizon' forecasts all steps before"):
        read_config(None, {"data": data, "network": {"output": "horizon"}})


# --- what is learnt from ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", ["equal", "mixed"])
def test_windows_hold_what_is_known_of_the_step_after_each(tmp_path: Path, lengths: str) -> None:
    table = pd.concat([shop(300).assign(site=place, promotion=np.arange(300) + 1000 * place) for place in (0, 1)])
    table["sales"] = table.promotion.astype(float)
    panel = panel_of(table, tmp_path, {"target": ("sales",), "series": "site", "exogenous": ("promotion",)})
    given = config({"horizon": 5})
    given = given.model_copy(update={"fitting": given.fitting.model_copy(update={"lengths": lengths})})
    windows = Windows.cut(panel, split(panel, given), given)
    for batch in [*windows.epoch(0), *windows.judged()]:
        assert batch.known is not None
        assert batch.known.shape == (*batch.values.shape[:2], 1)
        real = batch.values[:, 1:, 0] != 0
        np.testing.assert_array_equal(batch.known[:, :-1, 0][real], batch.values[:, 1:, 0][real])


def test_columns_are_scaled_by_what_they_are_in_the_training_part(tmp_path: Path) -> None:
    table = shop(400)
    table.loc[350:, "price"] = 1000.0
    panel = panel_of(table, tmp_path, {"target": ("sales",), "exogenous": ("price", "promotion")})
    known = known_of(panel, split(panel, config({"horizon": 7})))
    assert known.centres[0] == pytest.approx(10, abs=0.2)
    assert known.sizes[0] == pytest.approx(1, abs=0.2)
    assert known.sizes[1] == pytest.approx(table.promotion[:300].std(), abs=0.05)


@pytest.mark.parametrize(("days", "learnt"), [(700, False), (1700, False), (2000, True)])
def test_something_is_learnt_of_each_day_of_the_year_where_it_has_come_often_enough(
    tmp_path: Path, days: int, learnt: bool
) -> None:
    data = {"target": ("sales",), "calendar": ("day_of_year",)}
    panel = panel_of(shop(days), tmp_path, data)
    network = unfitted(panel, split(panel, config({})), config({}))
    assert network.known.days is learnt
    assert (network.days is not None) is learnt
    other = panel_of(shop(days), tmp_path, data | {"calendar": ("month",)})
    assert not known_of(other, split(other, config({}))).days


def test_a_network_is_made_again_from_its_configuration(tmp_path: Path) -> None:
    panel = panel_of(shop(300), tmp_path, {"target": ("sales",), "calendar": FIELDS, "exogenous": ("price",)})
    network = unfitted(panel, split(panel, config({})), config({}))
    again = Forecaster.from_config(network.get_config())
    assert again.known == network.known
    assert [weight.shape for weight in again.weights] == [weight.shape for weight in network.weights]


# --- what becomes of it ----------------------------------------------------------------------------------------------

SMALL = """
[network]
layers = [12]
context_length = 28
[fitting]
epochs = 4
steps_per_epoch = 30
batch_size = 32
learning_rate = 1e-2
"""


def mae_of_model(folder: Path, frame: pd.DataFrame, *arguments: str) -> float:
    """The MAE over seven days of a model of a table."""
    (folder / "small.toml").write_text(SMALL)
    data = ["--data", str(write(frame, folder / "data.csv")), "--name", "m", "--horizon", "7"]
    assert main(["fit", *data, "--config", str(folder / "small.toml"), "--output", str(folder), *arguments]) == 0
    metadata = Engine.open(folder / "m" / "1" / FILE_NAME).metadata
    assert metadata.backtest is not None
    return metadata.backtest.multi_step["model"].mae


def mae_of_middle(values: pd.Series) -> float:
    """The MAE of the median at every step: where the past tells nothing, there is no better forecast."""
    return float((values - values.median()).abs().mean())


def test_columns_that_sales_depend_on_make_them_foreseeable(tmp_path: Path) -> None:
    frame = shop(500)
    found = mae_of_model(tmp_path, frame, "--target", "sales", "--exogenous", "price", "promotion")
    assert found < 0.5 * mae_of_middle(frame.sales)


def test_the_calendar_makes_paydays_foreseeable(tmp_path: Path) -> None:
    frame = paydays(700)
    assert mae_of_model(tmp_path, frame, "--calendar", "day_of_month") < 0.8 * mae_of_middle(frame.value)


@pytest.mark.parametrize(
    "network",
    [
        pytest.param({}, id="references"),
        pytest.param({"head": "plain", "scaling": 10.0, "lags": ()}, id="plain"),
        pytest.param({"output": "vector", "bidirectional": True}, id="slid"),
        pytest.param({"cell": "gru", "convolution": {"filters": 4}, "lags": "found"}, id="convolution"),
    ],
)
def test_the_service_answers_what_keras_forecasts_from_the_same_table(tmp_path: Path, network: dict[str, Any]) -> None:
    data = {"target": ["sales"], "calendar": ["weekday", "day_of_year"], "exogenous": ["price", "promotion"]}
    given = config({**data, "horizon": 7}, **network)
    panel = read_panel(read_table(write(shop(), tmp_path / "data.csv")), given)
    parts = split(panel, given)
    fitted = fit(panel, parts, given, checkpoint=tmp_path / "run.npz", progress=Quiet()).network
    serve(tmp_path / "models", fitted, panel)
    table, end, horizon = shop(), 650, 5
    columns = table[["sales", "price", "promotion"]].to_numpy(np.float32)
    body = {
        "model": "tiny",
        "window": columns[:end].tolist(),
        "horizon": horizon,
        "future": columns[end : end + horizon, 1:].tolist(),
        "origin": str(table.day[end - 1])[:10],
    }

    with running(tmp_path / "models", tmp_path / "log") as service, service.client() as client:
        answer = client.post("/forecast/multi-step", json=body)

    assert answer.status_code == 200, answer.text
    known = panel.series[0].known
    assert known is not None
    wanted = by_keras(fitted, columns[None, end - 28 : end, :1], known[None, end - 27 : end + horizon])
    np.testing.assert_allclose(answer.json()["forecasts"][0]["values"], wanted[0], rtol=1e-4)


def serve(folder: Path, network: Forecaster, panel: Panel) -> Path:
    """Export a network into a folder of models."""
    path = folder / "tiny" / "1" / FILE_NAME
    path.parent.mkdir(parents=True)
    about = {"calendar": panel.calendar, "exogenous": panel.exogenous, "frequency": panel.frequency}
    known = {"context_length": network.network.context_length, "features": panel.features}
    export(network, metadata_of(network).model_copy(update=about | known), path)
    return path


def by_keras(network: Forecaster, window: Floats, known: Floats) -> Floats:
    """Forecast iteratively with Keras alone: by the carried state, or by sliding the window."""
    horizon = known.shape[1] - window.shape[1] + 1
    state = np.zeros((1, network.state_size), np.float32) if network.state_size else None
    values, told, steps = window, known[:, : window.shape[1]], []
    for step in range(horizon):
        after = network.step(values, state, known=told)
        forecast, state = np.asarray(after[0]), None if after[1] is None else np.asarray(after[1])
        steps.append(forecast)
        following = known[:, window.shape[1] + step : window.shape[1] + step + 1]
        slid = network.state_size == 0
        values = np.concatenate((values[:, 1:], forecast[:, None]), axis=1) if slid else forecast[:, None]
        told = np.concatenate((told[:, 1:], following), axis=1) if slid else following
    return np.stack(steps, axis=1)


def test_several_networks_in_one_file_are_told_the_same(tmp_path: Path) -> None:
    data = {"target": ["sales"], "calendar": ["day_of_year"], "exogenous": ["price"]}
    panel = panel_of(shop(2000), tmp_path, {key: tuple(names) for key, names in data.items()})
    members = [
        unfitted(panel, split(panel, config(data)), config(data).model_copy(update={"seed": seed})) for seed in (1, 2)
    ]
    for member in members:
        for weight in member.weights:
            weight.assign_add(0.1 * np.random.default_rng(0).standard_normal(weight.shape))
    together = Ensemble.of(members[0], [member.get_weights() for member in members], "mean")
    engine = Engine.open(serve(tmp_path / "models", together, panel))
    window, known = np.ones((1, 28, 1), np.float32).cumsum(axis=1), panel.series[0].known
    assert known is not None
    alone = [
        np.asarray(member.step(window, np.zeros((1, member.state_size), np.float32), known=known[None, :28])[0])
        for member in members
    ]
    np.testing.assert_allclose(engine.forecast(window, 1, known[None, :28])[0], np.mean(alone, axis=0), rtol=1e-4)


def test_a_backtest_of_the_served_model_is_told_what_was_known(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL.replace("epochs = 4", "epochs = 1"))
    file = str(write(shop(), tmp_path / "data.csv"))
    arguments = ["--data", file, "--target", "sales", "--name", "m", "--horizon", "3", "--calendar", "weekday"]
    more = ["--exogenous", "price", "promotion", "--config", str(tmp_path / "small.toml"), "--output", str(tmp_path)]
    assert main(["fit", *arguments, *more]) == 0
    engine = Engine.open(tmp_path / "m" / "1" / FILE_NAME)
    assert engine.metadata.errors is not None
    table = read_table(Path(file))
    panel = read_for(engine, table, Data(target=("sales",)))
    assert (panel.calendar, panel.exogenous) == (("weekday",), ("price", "promotion"))
    outcome = run(engine, panel, Terms(basis="window"), table.source)
    assert engine.metadata.backtest is not None
    assert outcome.scores["model"].mae == pytest.approx(engine.metadata.backtest.multi_step["model"].mae, rel=1e-4)
    assert error_table(engine, panel, split(panel, config({"horizon": 3}))) is not None
    bare = read_table(write(shop().drop(columns="promotion"), tmp_path / "bare.csv"))
    with pytest.raises(DataError, match="there is no column 'promotion'"):
        read_for(engine, bare, Data(target=("sales",)))


def test_a_table_of_other_models_is_read_as_before(tmp_path: Path) -> None:
    panel = panel_of(hourly(100), tmp_path, {"target": ("load",)})
    assert (panel.calendar, panel.exogenous, panel.series[0].known) == ((), (), None)


def test_the_document_shows_what_is_read(tmp_path: Path) -> None:
    document = (Path(__file__).parents[2] / "docs" / "known-inputs.md").read_text(encoding="utf-8")
    (body,) = re.findall(r"```json\n(.*?)```", document, re.DOTALL)
    (settings,) = re.findall(r"```toml\n(.*?)```", document, re.DOTALL)
    request = MultiStepRequest.model_validate_json(body)
    assert {len(row) for row in request.window or [] if isinstance(row, list)} == {3}
    assert len(request.future or []) == request.horizon
    (tmp_path / "run.toml").write_text(settings)
    shown = read_config(tmp_path / "run.toml", {}).data
    assert (shown.exogenous, shown.calendar) == (("price", "promotion"), ("weekday", "month", "day_of_year"))
    assert set(re.findall(r"^\| `(\w+)` \|", document, re.MULTILINE)) == set(FIELDS)
    panel = read_panel(Table(synthetic.shop(), "shop", "row"), Config(data=shown))
    assert (panel.frequency, panel.series[0].values.shape, known_of(panel, split(panel, Config())).count) == (
        "D",
        (1096, 1),
        5,
    )


@pytest.mark.parametrize("output", ["sequence", "vector"])
def test_padding_tells_a_network_nothing(output: Output) -> None:
    known = Known(calendar=("weekday",), centres=(1.0,), sizes=(2.0,))
    shape = Network(layers=(4,), context_length=30, output=output, carry=True)
    network = Forecaster.from_network(shape, features=1, season=6, known=known)
    rng = np.random.default_rng(0)
    for weight in network.weights:
        weight.assign_add(0.2 * rng.standard_normal(weight.shape))
    values = rng.standard_normal((1, 40, 1)).astype(np.float32)
    told = np.stack((np.arange(40) % 7, rng.standard_normal(40)), axis=1)[None].astype(np.float32)
    padded = np.concatenate((np.zeros((1, 9, 1), np.float32), values), axis=1)
    before = np.concatenate((np.full((1, 9, 2), 5, np.float32), told), axis=1)
    lengths = np.array([30], np.int32)

    if output == "sequence":
        alone = network.sequence(values, 30, free=10, known=told)[1]
        within = network.sequence(padded, 39, free=10, lengths=lengths, known=before)[1]
    else:
        alone = network.ahead(values[:, :30], steps=10, known=told)[0]
        within = network.ahead(padded[:, :39], steps=10, lengths=lengths, known=before)[0]

    np.testing.assert_allclose(np.asarray(within), np.asarray(alone), rtol=1e-4, atol=1e-5)
