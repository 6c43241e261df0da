"""`backtest`: how well any model forecasts any table."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from service.errors import ArtifactError
from training.commands.given import SEVERAL, frequency_code, with_target
from training.commands.terminal import say
from training.config import read_config
from training.errors import DataError
from training.versions import artifact_of


def backtest(
    model: Path,
    *,
    data: Path | None = None,
    dataset: str | None = None,
    target: Annotated[list[str] | None, SEVERAL] = None,
    time: str | None = None,
    series: str | None = None,
    frequency: str | None = None,
    season: int | None = None,
    fill_limit: int | None = None,
    skip_short: Annotated[bool, Parameter(negative="")] = False,
    horizon: int | None = None,
    origins: int | None = None,
    stride: int | None = None,
    levels: Annotated[list[float] | None, SEVERAL] = None,
    references: Annotated[list[Literal["ets", "theta", "arima"]] | None, SEVERAL] = None,
    own_past: Annotated[bool, Parameter(negative="")] = False,
    mase_season: int | None = None,
    basis: Literal["artifact", "window"] = "artifact",
    output: Path | None = None,
) -> None:
    """Score a model on a table from rolling origins, as the service would forecast, beside simple references.

    Args:
        model: A model.onnx, a folder that holds one, or a folder of versions, of which the latest is taken.
        data: CSV (comma, semicolon or tab; UTF-8) or Parquet file, one row per time step (and series).
        dataset: Instead of a file, a public data set: co2, elnino, macrodata, nile or sunspots.
        target: Columns to forecast, in the model's order. Those that are named like its features when not given, else
            the only column of numbers.
        time: Column of timestamps, or of whole numbers that count steps. The only column of dates when not given.
        series: Column that tells series apart, for several in one table.
        frequency: Spacing of the steps, such as h, 15min, D, W, M. Inferred from the time column when not given.
        season: Steps in a season, such as 24 for hours. The model's when not given, else inferred from the frequency.
        fill_limit: Longest run of missing steps that is filled, linearly; 3 when not given.
        skip_short: Leave out series that are too short, instead of refusing the table.
        horizon: Steps ahead that are scored. As in the model's training run when not given, else one season, else 24.
        origins: Origins of each series, the last ones. When neither these nor --stride is given, the origins are those
            that `fit` scores: at most about 500 in all, over the last tenth.
        stride: Steps from one origin to the next; 1 when only --origins is given.
        levels: Levels of intervals in percent; 80 and 95 when not given, those that the errors support.
        references: Statistical references besides the quick ones: ets, theta, arima. Each is fitted once a series,
            which takes up to some seconds.
        own_past: Divide MASE and MSIS by the differences before each origin, as GIFT-Eval does, instead of those before
            the first one.
        mase_season: Steps apart of the differences that MASE and MSIS divide by; the season when not given.
        basis: What intervals rest on: the errors in the model's file, or those of each window's own past, as far as
            all that lies before an origin has enough of them.
        output: Folder for a report, backtest.html, and all scores, backtest.csv.
    """
    given = read_config(
        None,
        {
            "data": {
                "target": tuple(target) if target else None,
                "time": time,
                "series": series,
                "frequency": frequency_code(frequency),
                "season": season,
                "fill_limit": fill_limit,
            }
        },
    )
    from training.rolling import Terms

    terms = Terms(
        horizon=horizon,
        origins=origins,
        stride=stride,
        levels=tuple(levels) if levels else None,
        references=tuple(dict.fromkeys(references or ())),
        own_past=own_past,
        mase_season=mase_season,
        basis=basis,
    )
    if (data is None) == (dataset is None):
        raise DataError("give either --data FILE or --dataset NAME")
    file = artifact_of(model)
    from service.engine import Engine
    from training.backtest_report import write
    from training.datasets import load
    from training.progress import Bars
    from training.rolling import check, read_for, run
    from training.scoreboard import show
    from training.table import read_table

    check(terms)
    try:
        engine = Engine.open(file)
    except ArtifactError as error:
        raise DataError(f"{file}: {error}") from None
    if dataset is not None:
        table, usual = load(dataset)
        given = with_target(given, usual)
    else:
        table = read_table(Path(str(data)))
    panel = read_for(engine, table, given.data)
    with Bars(Console(stderr=True)) as bars:
        for note in panel.notes:
            bars.say(note)
        outcome = run(engine, panel, terms, table.source, skip_short=skip_short, progress=bars.backtest)
        for note in outcome.notes[len(panel.notes) :]:
            bars.say(note)
    shown = Console()
    show(shown, outcome)
    if output is not None:
        for written in write(outcome, output):
            say(shown, f"wrote {written}")
