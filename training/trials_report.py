"""The report of a search: its trials as a table, a plot and a page, and the best configuration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from training.errors import OutputError
from training.plots import COLOURS, EDGE, QUIET, STYLE, svg
from training.trials import Trial, Trials

PAGE_NAME: Final = "trials.html"
TABLE_NAME: Final = "trials.csv"
BEST_NAME: Final = "best.toml"

_FURTHEST: Final = 2.0  # times the error of the configuration as given: worse trials are drawn at the edge
_COLUMNS: Final = 3


def write(source: str, notes: tuple[str, ...], folder: Path, trials: Trials) -> list[Path]:
    """Write page, table and best configuration into a folder, and return their paths.

    Args:
        source: the table that was searched on.
        notes: what was taken, inferred and filled in it.
        folder: where to; it is made where it is missing.
        trials: all trials so far.

    Raises:
        OutputError: the folder cannot be written to.
    """
    page, table, best = folder / PAGE_NAME, folder / TABLE_NAME, folder / BEST_NAME
    rendered = render(source, notes, trials)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        best.write_text(trials.toml(), encoding="utf-8")
        trials.frame().to_csv(table, index=False)
        page.write_text(rendered, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from None
    return [best, table, page]


def render(source: str, notes: tuple[str, ...], trials: Trials) -> str:
    """The page as one HTML document without any reference to another host."""
    environment = Environment(
        loader=PackageLoader("training", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("trials.html.j2").render(
        source=Path(source).name,
        notes=notes,
        trials=trials,
        toml=trials.toml(),
        trials_plot=svg(trials_plot(trials), "Error of each trial, and the best so far"),
        parameters_plot=svg(parameters_plot(trials), "Error by each parameter") if trials.searched else None,
    )


def trials_plot(trials: Trials) -> Figure:
    """The error of each trial in their order, with the best so far and that of the configuration as given."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.2, 3.6), layout="constrained")
        axes = figure.subplots()
        numbers = [trial.number for trial in trials.all]
        axes.axhline(min(trials.given.error, _top(trials)), color=EDGE, linewidth=1.2, label="as given")
        best = np.minimum(trials.best_so_far, _top(trials))
        axes.step(numbers, best, where="post", color=COLOURS["model"], linewidth=1.8, label="best so far")
        _dots(axes, trials, numbers)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="trial", ylabel="error on validation data")
        _limit(axes, trials)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def parameters_plot(trials: Trials) -> Figure:
    """The error of each trial by every parameter that was searched."""
    names = trials.searched
    with mpl.rc_context(STYLE):
        rows = (len(names) + _COLUMNS - 1) // _COLUMNS
        figure = Figure(figsize=(11.2, 2.8 * rows), layout="constrained")
        grid = figure.subplots(rows, min(len(names), _COLUMNS), squeeze=False, sharey=True)
        for axes, name in zip(grid.flat, names, strict=False):
            _by_parameter(axes, trials, name)
        for axes in grid.flat[len(names) :]:
            axes.set_visible(False)
        for row in grid:
            row[0].set_ylabel("error")
    return figure


def _by_parameter(axes: Axes, trials: Trials, name: str) -> None:
    values = [trial.parameters[name] for trial in trials.all]
    if name == "learning_rate":
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        _dots(axes, trials, [trial.config.fitting.rate for trial in trials.all])
    else:
        known = sorted(set(values), key=lambda value: (isinstance(value, str), value))
        _dots(
            axes, trials, [known.index(value) + _aside(trial) for trial, value in zip(trials.all, values, strict=True)]
        )
        axes.set_xticks(range(len(known)), [str(value) for value in known])
        axes.set_xlim(-0.5, len(known) - 0.5)
    axes.set_title(name.replace("_", " "))
    _limit(axes, trials)


def _aside(trial: Trial) -> float:
    """A little to one side, so that equal choices do not hide each other."""
    return 0.24 * ((trial.number * 0.618) % 1 - 0.5)


def _dots(axes: Axes, trials: Trials, places: Sequence[float]) -> None:
    top = _top(trials)
    errors = [min(trial.error, top) for trial in trials.all]
    best = trials.all.index(trials.best)
    for pruned, label, marker, colour in ((False, "finished", "o", COLOURS["model"]), (True, "given up", "x", QUIET)):
        taken = [place for place, trial in enumerate(trials.all) if trial.pruned == pruned]
        if taken:
            across, up = [places[index] for index in taken], [errors[index] for index in taken]
            axes.plot(across, up, marker, color=colour, markersize=5, label=label, clip_on=False)
    axes.plot([places[best]], [errors[best]], "o", color=COLOURS["naive"], markersize=8, label="best", zorder=4)


def _top(trials: Trials) -> float:
    """The largest error that is drawn as it is."""
    known = [trial.error for trial in trials.all if np.isfinite(trial.error)]
    usual = trials.given.error if np.isfinite(trials.given.error) else trials.best.error
    return min(max(known, default=1.0), _FURTHEST * usual)


def _limit(axes: Axes, trials: Trials) -> None:
    known = [trial.error for trial in trials.all if np.isfinite(trial.error)]
    low, high = min(known, default=0.0), _top(trials)
    spare = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    axes.set_ylim(low - spare, high + spare)
