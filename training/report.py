"""The report of a training run: one HTML page that holds everything it shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from service.artifact import Backtest, Metadata, Scores
from training.backtest import MODEL, NAIVE, SEASONAL_NAIVE, Evaluation, Roll, in_words
from training.panel import Panel
from training.parts import Split
from training.plots import COLOURS, QUIET, STYLE, TRUTH, short, svg

_EXAMPLES: Final = 6
_SHOWN_HISTORY: Final = 3  # horizons of context shown before each forecast


class Losses(Protocol):
    """Mean loss by epoch, and the epoch (from 1) whose weights were kept."""

    @property
    def training(self) -> Sequence[float]: ...

    @property
    def validation(self) -> Sequence[float]: ...

    @property
    def best_epoch(self) -> int: ...


def still_improving(runs: Sequence[Losses], limit: int) -> str | None:
    """Say that runs stopped at their limit of epochs with the best one; None where none did."""
    stopped = sum(losses.best_epoch == len(losses.validation) == limit for losses in runs)
    if not stopped:
        return None
    epochs = "1 epoch" if limit == 1 else f"{limit} epochs"
    some = "" if len(runs) == 1 else f"in {stopped} of {len(runs)} runs "
    return f"{some}stopped at the limit of {epochs} while still improving: more epochs (--epochs) may help"


def render(
    metadata: Metadata, panel: Panel, split: Split, runs: Sequence[Losses], evaluation: Evaluation, *, epoch_limit: int
) -> str:
    """The whole report as one HTML document without any reference to another host; `runs` are those of its networks."""
    environment = Environment(
        loader=PackageLoader("training", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    scores = evaluation.scores
    return environment.get_template("report.html.j2").render(
        metadata=metadata,
        notes=panel.notes,
        parts=_parts(panel, split),
        verdict=scores.verdict,
        good=scores.verdict.startswith("Better than naive:"),
        scores=scores,
        tables=[("One step ahead", _rows(scores.one_step)), (_over(scores), _rows(scores.multi_step))],
        loss_plot=_loss_plot(runs),
        runs=runs,
        still_improving=still_improving(runs, epoch_limit),
        examples_plot=_examples_plot(panel, evaluation.rolls),
        lead_time_plot=_lead_time_plot(scores),
        configuration=_flat(metadata.training.configuration),
    )


@dataclass(frozen=True)
class _Row:
    method: str
    scores: Scores
    skill: float | None  # None for the references
    best: bool


def _rows(scores: Mapping[str, Scores]) -> list[_Row]:
    reference = min(held.mae for method, held in scores.items() if method != MODEL)
    lowest = min(held.mae for held in scores.values())
    return [
        _Row(
            in_words(method),
            held,
            1 - held.mae / reference if method == MODEL and reference else None,
            held.mae == lowest,
        )
        for method, held in scores.items()
    ]


def _over(scores: Backtest) -> str:
    return f"Over {scores.horizon} steps" if scores.horizon > 1 else "Over 1 step"


def _parts(panel: Panel, split: Split) -> dict[str, int]:
    """Steps of each part, summed over the series."""
    pairs = list(zip(panel.series, split.boundaries, strict=True))
    return {
        "training": sum(part.train_end for _, part in pairs),
        "validation": sum(part.validation_end - part.train_end for _, part in pairs),
        "test": sum(len(one.values) - part.validation_end for one, part in pairs),
    }


def _flat(configuration: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in configuration.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            rows.append((prefix + key, ", ".join(str(held) for held in value) or "–"))
        else:
            rows.append((prefix + key, "–" if value in (None, "") else str(value)))
    return rows


def _loss_plot(runs: Sequence[Losses]) -> Markup:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.0), layout="constrained")
        axes = figure.subplots()
        for number, losses in enumerate(runs):
            _losses(axes, losses, named=number == 0, width=1.5 if len(runs) == 1 else 1.0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="epoch", ylabel="loss")
        axes.legend()
        return svg(figure, "Training and validation loss by epoch")


def _losses(axes: Axes, losses: Losses, *, named: bool, width: float) -> None:
    epochs = np.arange(1, len(losses.training) + 1)
    style: dict[str, Any] = {"marker": "o" if len(epochs) < 3 else None, "markersize": 4, "linewidth": width}
    names = ("training", "validation", "kept") if named else (None, None, None)
    axes.plot(epochs, losses.training, color=QUIET, label=names[0], **style)
    axes.plot(epochs, losses.validation, color=COLOURS[MODEL], label=names[1], **style)
    if losses.best_epoch:
        best = losses.validation[losses.best_epoch - 1]
        axes.plot([losses.best_epoch], [best], "o", color=COLOURS[MODEL], markersize=6, label=names[2])


def _lead_time_plot(scores: Backtest) -> Markup:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.0), layout="constrained")
        axes = figure.subplots()
        leads = np.arange(1, scores.horizon + 1)
        for method, errors in scores.mae_by_lead_time.items():
            axes.plot(
                leads,
                errors,
                color=COLOURS[method],
                label=in_words(method),
                linewidth=2.0 if method == MODEL else 1.3,
                marker="o" if scores.horizon <= 12 else None,
                markersize=4,
                zorder=3 if method == MODEL else 2,
            )
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="lead time, steps", ylabel="mean absolute error")
        axes.legend()
        return svg(figure, "Mean absolute error by lead time and method")


def _examples_plot(panel: Panel, rolls: Sequence[Roll]) -> Markup:
    """Forecasts against truth from origins spread evenly over the test parts, features taken in turn."""
    places = [(roll, index) for roll in rolls for index in range(len(roll.origins))]
    chosen = [places[index] for index in np.unique(np.linspace(0, len(places) - 1, _EXAMPLES).round().astype(int))]
    with mpl.rc_context(STYLE):
        height = 2.5 * ((len(chosen) + 1) // 2) + 0.4
        figure = Figure(figsize=(11.2, height), layout="constrained")
        grid = figure.subplots((len(chosen) + 1) // 2, 2 if len(chosen) > 1 else 1, squeeze=False)
        for number, axes in enumerate(grid.flat):
            if number < len(chosen):
                _example(axes, panel, *chosen[number], feature=number % len(panel.features))
            else:
                axes.set_visible(False)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
        return svg(figure, "Forecasts against truth from several origins")


def _example(axes: Axes, panel: Panel, roll: Roll, index: int, *, feature: int) -> None:
    origin, horizon = int(roll.origins[index]), roll.actual.shape[1]
    shown = min(origin + 1, max(_SHOWN_HISTORY * horizon, 24))
    before, ahead = np.arange(1 - shown, 1), np.arange(1, horizon + 1)
    history = roll.series.values[origin + 1 - shown : origin + 1, feature]
    truth = roll.actual[index, :, feature]
    marker = "o" if horizon < 3 else None
    axes.axvline(0, color="#c3cad4", linewidth=1)
    axes.plot(before, history, color=QUIET, linewidth=1, label="context")
    axes.plot(np.append(0, ahead), np.append(history[-1], truth), color=TRUTH, linewidth=1.3, label="truth")
    for method in (SEASONAL_NAIVE if SEASONAL_NAIVE in roll.forecasts else NAIVE, MODEL):
        forecast = roll.forecasts[method][index, :, feature]
        style = {"linewidth": 2.0} if method == MODEL else {"linewidth": 1.2, "linestyle": (0, (3, 2))}
        axes.plot(ahead, forecast, color=COLOURS[method], label=in_words(method), marker=marker, **style)
    parts = [roll.series.name] if len(panel.series) > 1 else []
    parts += [panel.features[feature]] if len(panel.features) > 1 or not parts else []
    when = f"step {origin}" if roll.series.times is None else short(str(roll.series.times[origin]))
    axes.set_title(f"{', '.join(parts)} · origin {when}")
