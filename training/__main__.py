"""The command line of training: `python -m training fit | sweep | tune | backtest | describe | sample`."""

import logging
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter, validators
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from service.artifact import FILE_NAME, FREQUENCY_PATTERN, Metadata, Provenance, Scores
from service.calendar import CalendarField
from service.errors import ArtifactError
from training.config import Config, read_config
from training.errors import ConfigError, DataError, ExportError, FittingError, Interrupted, OutputError, TrainingError
from training.versions import artifact_of

if TYPE_CHECKING:
    from training.data import Panel, Split
    from training.table import Table

app = App(
    name="python -m training",
    help="Fit a stacked LSTM on your own series, and write it as one file that the service forecasts from.",
    version_flags=[],
    result_action="return_value",
)

_WRONG, _FAILED, _INTERRUPTED = 2, 1, 130  # exit codes: bad input, a failure of ours, Ctrl-C


_SEVERAL = Parameter(consume_multiple=True, negative="")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Given:
    """What `fit`, `sweep` and `tune` are given alike.

    Args:
        data: CSV (comma, semicolon or tab; UTF-8) or Parquet file, one row per time step (and series).
        dataset: Instead of a file, a public data set: co2, elnino, macrodata, nile or sunspots.
        target: Columns to forecast; several make one model of them all. The only column of numbers when not given.
        time: Column of timestamps, or of whole numbers that count steps. The only column of dates when not given.
        series: Column that tells series apart, for several in one table: one model is fitted on all of them.
        frequency: Spacing of the steps, such as h, 15min, D, W, M. Inferred from the time column when not given.
        season: Steps in a season, such as 24 for hours. Inferred from the frequency when not given.
        calendar: What the model reads of the calendar of each step. Requests then need an origin.
        exogenous: Columns that are known beforehand, such as prices. Requests then tell their future.
        context: Steps of history that the model looks at; 192 when not given, fewer where series are short.
        horizon: Steps ahead that are scored. One season when not given, else 24.
        fill_limit: Longest run of missing steps that is filled, linearly; 3 when not given.
        skip_short: Leave out series that are too short, instead of refusing the table.
        config: TOML file of settings; those on the command line win.
        seed: Number that all randomness comes from; 0 when not given.
    """

    data: Path | None = None
    dataset: str | None = None
    target: Annotated[list[str] | None, _SEVERAL] = None
    time: str | None = None
    series: str | None = None
    frequency: str | None = None
    season: int | None = None
    calendar: Annotated[list[CalendarField] | None, _SEVERAL] = None
    exogenous: Annotated[list[str] | None, _SEVERAL] = None
    context: int | None = None
    horizon: int | None = None
    fill_limit: int | None = None
    skip_short: Annotated[bool | None, Parameter(negative="")] = None
    config: Path | None = None
    seed: int | None = None

    def read(self, overrides: Mapping[str, Any]) -> "tuple[Table, Config]":
        """The table and the configuration, other options of a command laid over the file's, too.

        Raises:
            ConfigError: as `read_config`.
            DataError: no table or two are named, or it cannot be read.
        """
        own = {
            "seed": self.seed,
            "data": {
                "target": tuple(self.target) if self.target else None,
                "time": self.time,
                "series": self.series,
                "frequency": _frequency(self.frequency),
                "season": self.season,
                "calendar": tuple(self.calendar) if self.calendar else None,
                "exogenous": tuple(self.exogenous) if self.exogenous else None,
                "horizon": self.horizon,
                "fill_limit": self.fill_limit,
                "skip_short": self.skip_short,
            },
            "network": {"context_length": self.context},
        }
        given = read_config(self.config, own | dict(overrides))
        if (self.data is None) == (self.dataset is None):
            raise DataError("give either --data FILE or --dataset NAME")
        # pandas takes half a second to import: not before it is needed.
        from training.datasets import load
        from training.table import read_table

        if self.dataset is not None:
            table, usual = load(self.dataset)
            given = _with_target(given, usual)
        else:
            table = read_table(Path(str(self.data)))
        if "name" not in given.model_fields_set:
            given = given.model_copy(update={"name": model_name(self.dataset or Path(str(self.data)).stem)})
        return table, given


_NOTHING_GIVEN = Given()


@app.command
def fit(
    *,
    output: Path,
    given: Given = _NOTHING_GIVEN,
    name: str | None = None,
    epochs: int | None = None,
    learning_rate: str | None = None,
    seeds: int | None = None,
    combine: Literal["mean", "median"] | None = None,
    jobs: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    resume: bool = True,
) -> None:
    """Fit a model on a table, and write it to OUTPUT/NAME/VERSION with a report of how well it forecasts.

    Args:
        output: Folder of models; the service serves it when LEADTIME_MODELS names it.
        name: The model's name. The file's name when not given.
        epochs: Most passes over the training windows, 60 when not given; fitting stops earlier when validation no
            longer improves.
        learning_rate: The highest one that is reached, 0.002 when not given; `auto` finds one by a short sweep first.
        seeds: Networks that are fitted, from SEED and the seeds after it, and forecast together; 1 when not given.
        combine: What is made of the forecasts of several networks at each step: their mean or their median.
        jobs: Networks that are fitted at a time, where they are several; one for each core when not given. What comes
            out does not depend on it.
        resume: Go on from an interrupted run of the same data and settings.
    """
    table, config = given.read(
        {
            "name": name,
            "fitting": {"epochs": epochs, "learning_rate": learning_rate},
            "ensemble": {"seeds": seeds, "combine": combine},
        }
    )
    _quieten()
    from training.pipeline import REPORT_NAME, train
    from training.progress import Bars

    with Bars(Console(stderr=True)) as bars:
        trained = train(table, config, output, resume=resume, told=bars, jobs=jobs)
    shown = Console()
    _show_scores(shown, trained.metadata)
    for file in (FILE_NAME, REPORT_NAME):
        _say(shown, f"wrote {trained.folder / file}")


@app.command
def sweep(
    *,
    output: Path,
    given: Given = _NOTHING_GIVEN,
    lowest: float = 1e-8,
    highest: float | None = None,
    epochs: int = 100,
    steps: int = 5,
) -> None:
    """Fit at a rate that rises exponentially by epoch, and suggest a learning rate from how the losses went.

    Args:
        output: Folder for a plot, sweep.png, and the loss at each rate, sweep.csv.
        lowest: The first rate.
        highest: The last rate. When not given, 1e-3 after the epochs asked for; where the loss has not turned by then,
            the sweep goes on at the same pace.
        epochs: How many rates there are from the lowest to the highest; with the usual ones the rate rises tenfold in
            20 epochs. The sweep ends earlier where the loss diverges.
        steps: Batches of each epoch, the same ones in all.
    """
    _quieten()
    from training.pipeline import without_messages
    from training.progress import Bars

    table, config = given.read({})
    with without_messages():
        from training import sweep as sweeping
    usual = sweeping.Range()
    if highest is None:
        rates = sweeping.Range(lowest, usual.highest, epochs, steps, usual.beyond)
    else:
        rates = sweeping.Range(lowest, highest, epochs, steps, beyond=highest)
    sweeping.check(rates)
    panel, config, parts = _prepared(table, config)
    with Bars(Console(stderr=True)) as bars:
        for note in panel.notes:
            bars.say(note)
        found = sweeping.sweep(panel, parts, config, rates, partial(bars.stage, "learning rates"))
    shown = Console()
    rate = "no learning rate is suggested" if found.suggested is None else f"learning rate {found.suggested:g}"
    _say(shown, f"{rate}: {found.told}")
    for written in sweeping.write(found, output):
        _say(shown, f"wrote {written}")


@app.command
def tune(
    *,
    output: Path,
    given: Given = _NOTHING_GIVEN,
    name: str | None = None,
    epochs: int | None = None,
    learning_rate: str | None = None,
    trials: int = 20,
    widths: Annotated[list[int] | None, _SEVERAL] = None,
    depths: Annotated[list[int] | None, _SEVERAL] = None,
    contexts: Annotated[list[int] | None, _SEVERAL] = None,
    rates: tuple[float, float] | None = None,
    losses: Annotated[list[str] | None, _SEVERAL] = None,
    cells: Annotated[list[str] | None, _SEVERAL] = None,
    resume: bool = True,
) -> None:
    """Search for a better configuration on validation data, and write the best one as a file that `fit` takes.

    Args:
        output: Folder for best.toml, trials.csv, trials.html, and the journal by which the search can go on.
        name: The name of the model that best.toml makes. The file's name when not given.
        epochs: Most passes over the training windows in each trial, 60 when not given, and in fitting with best.toml.
        learning_rate: That of the first trial, 0.002 when not given; `auto` finds one by a short sweep first.
        trials: How many there are to be, those of earlier runs of the same search included; the first is always the
            configuration as given.
        widths: Units of all layers to choose from; 32 64 128 when not given.
        depths: Numbers of layers to choose from; 1 2 3 when not given.
        contexts: Steps of history to choose from; half the usual, the usual and its double when not given.
        rates: Lowest and highest learning rate; 0.0003 0.01 when not given.
        losses: Among huber, mae and mse; all of them when not given.
        cells: Among lstm, gru, rnn and peephole_lstm; the network's when not given.
        resume: Go on with the search that the folder holds.
    """
    searched = {
        "width": widths,
        "depth": depths,
        "context_length": contexts,
        "learning_rate": rates,
        "loss": losses,
        "cell": cells,
    }
    table, config = given.read(
        {"name": name, "fitting": {"epochs": epochs, "learning_rate": learning_rate}, "tune": searched}
    )
    if trials < 1:
        raise ConfigError("--trials: at least 1, which is the configuration as given")
    _quieten()
    from training.pipeline import without_messages
    from training.progress import Bars
    from training.trials import show
    from training.trials_report import write

    panel, config, parts = _prepared(table, config)
    with without_messages():
        from training.tune import search
    with Bars(Console(stderr=True)) as bars:
        for note in panel.notes:
            bars.say(note)
        keep = partial(write, table.source, panel.notes, output)
        found = search(panel, parts, config, output, trials=trials, resume=resume, told=bars, after=keep)
    shown = Console()
    show(shown, found)
    for written in write(table.source, panel.notes, output, found):
        _say(shown, f"wrote {written}")


@app.command
def backtest(
    model: Path,
    *,
    data: Path | None = None,
    dataset: str | None = None,
    target: Annotated[list[str] | None, _SEVERAL] = None,
    time: str | None = None,
    series: str | None = None,
    frequency: str | None = None,
    season: int | None = None,
    fill_limit: int | None = None,
    skip_short: Annotated[bool, Parameter(negative="")] = False,
    horizon: int | None = None,
    origins: int | None = None,
    stride: int | None = None,
    levels: Annotated[list[float] | None, _SEVERAL] = None,
    references: Annotated[
        list[Literal["ets", "theta", "arima"]] | None, Parameter(consume_multiple=True, negative="")
    ] = None,
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
                "frequency": _frequency(frequency),
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
        given = _with_target(given, usual)
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
            _say(shown, f"wrote {written}")


@app.command
def describe(file: Path, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Print what an artifact says of itself.

    Args:
        file: A model.onnx.
        json: Print the whole metadata as JSON.
    """
    from service.engine import Engine

    try:
        engine = Engine.open(file)
    except ArtifactError as error:
        raise DataError(f"{file}: {error}") from None
    console = Console()
    if json:
        console.out(engine.metadata.model_dump_json(indent=2), highlight=False)
        return
    _show_facts(console, engine.metadata, engine.digest)
    _show_scores(console, engine.metadata)


@app.command
def sample(which: Literal["lab", "panel", "shop"], *, output: Path | None = None, seed: int = 0) -> None:
    """Write generated example series as CSV, to try training with.

    Args:
        which: `lab`: one daily series with a yearly season, to be fitted with --season 365 --context 400 --horizon 24,
            since from daily dates `fit` infers a season of a week; `panel`: hourly demand of twelve sites, in long
            form; `shop`: daily sales with the price and the promotions that they hang on.
        output: File to write; standard output when not given.
        seed: Seed of the panel and of the shop. The lab series is always the same.
    """
    from training.synthetic import lab, panel, shop

    made = lab() if which == "lab" else panel(seed) if which == "panel" else shop(seed)
    text = made.to_csv(index=False)
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 for wrong input, 1 for a failed export, 130 when interrupted."""
    errors = Console(stderr=True)
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except Interrupted as error:
        _say(errors, str(error))
        return _INTERRUPTED
    except KeyboardInterrupt:
        _say(errors, "interrupted: nothing was written")
        return _INTERRUPTED
    except (ExportError, FittingError, ArtifactError) as error:
        _say(errors, f"error: {error}")
        return _FAILED
    except (CycloptsError, TrainingError) as error:
        _say(errors, f"error: {error}")
        return _WRONG
    except BrokenPipeError:
        # The reader has seen enough; without this the interpreter complains when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def model_name(text: str) -> str:
    """A legal model name from the name of a file or data set."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:64] or "model"


def _frequency(code: str | None) -> str | None:
    if code is not None and not re.fullmatch(FREQUENCY_PATTERN, code):
        raise ConfigError("--frequency: use s, min, h, D, W, M, Q or Y, after a number where needed, such as 15min")
    return code


def _prepared(table: "Table", config: Config) -> "tuple[Panel, Config, Split]":
    """A table's series, the configuration with a context that suits them, and where their parts meet."""
    from training.data import read_panel, split, suited

    panel = read_panel(table, config)
    config = suited(config, min(len(one.values) for one in panel.series), panel.season)
    return panel, config, split(panel, config)


def _with_target(config: Config, usual: str) -> Config:
    if config.data.target:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"target": (usual,)})})


def _quieten() -> None:
    """Keep TensorFlow's start-up messages from users."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _show_facts(console: Console, metadata: Metadata, digest: str) -> None:
    training = metadata.training
    facts = {
        "model": f"{metadata.name}, version {metadata.version}",
        "description": metadata.description,
        "features": ", ".join(metadata.features),
        "known": ", ".join((*metadata.calendar, *metadata.exogenous)) or "nothing beforehand",
        "context": f"{metadata.context_length} steps, at least {metadata.minimum_window}",
        "frequency": metadata.frequency or "any",
        "season": str(metadata.season_length or "none known"),
        "state": f"{metadata.state_size} floats carried" if metadata.state_size else "none, the window is slid",
        "errors": f"{metadata.errors.origins:,} held-out errors per lead time" if metadata.errors else "no error table",
        "made": training.created,
        "data": training.data,
        "data digest": training.data_digest or "–",
        "networks": _networks(training) if training.members else "one",
        "fitted on": f"{training.observations:,} observations of {training.series:,} series",
        "libraries": ", ".join(f"{name} {version}" for name, version in training.libraries.items()),
        "file digest": digest,
    }
    grid = Grid.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    for fact, value in facts.items():
        grid.add_row(fact, Text(value))
    console.print(grid, highlight=False)


def _networks(training: Provenance) -> str:
    seeds = ", ".join(dict.fromkeys(str(member.seed) for member in training.members))
    return f"{len(training.members)} whose forecasts are combined, from the seeds {seeds}"


def _show_scores(console: Console, metadata: Metadata) -> None:
    scores = metadata.backtest
    if scores is None:
        _say(console, "no backtest")
        return
    grid = Grid("method", title=f"{metadata.name}, version {metadata.version}: {scores.origins} held-out origins")
    for heading in ("MAE, 1 step", f"MAE, {scores.horizon} steps", "RMSE", "sMAPE, %", "MASE"):
        grid.add_column(heading, justify="right")
    for method, far in scores.multi_step.items():
        grid.add_row(method.replace("_", " "), _number(scores.one_step[method].mae), *_numbers(far))
    console.print(grid)
    _say(console, scores.verdict)


def _numbers(scores: Scores) -> list[str]:
    return [_number(value) for value in (scores.mae, scores.rmse, scores.smape, scores.mase)]


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if value < 9999.5 else f"{value:,.0f}"  # no powers of ten


def _stopped(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stopped)  # a container that is stopped can be taken up again, too
    sys.exit(main())
