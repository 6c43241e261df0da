"""The report of a backtest: one HTML page that holds everything it shows."""

from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from training.backtest import MODEL, NAIVE, SEASONAL_NAIVE, in_words
from training.baselines import Values
from training.errors import OutputError
from training.plots import COLOURS, EDGE, QUIET, STYLE, TRUTH, short, svg
from training.rolling import Example, Outcome
from training.scoreboard import frame, lead_rows, method_rows, number, series_rows, share

_HISTORY: Final = 3  # horizons shown before each origin
_LEAST_HISTORY: Final = 24
_FURTHEST: Final = 2.5  # times the error of the better naive reference: methods worse than that leave the plot
_LOWEST_SKILL: Final = -1.0  # skills below are counted into the last bar
_BARS: Final = 30
_WIDE, _NARROW = (11.2, 3.6), (5.4, 3.2)


def write(outcome: Outcome, folder: Path) -> list[Path]:
    """Write the report and the scores into a folder, making it, and return their paths.

    Raises:
        OutputError: the folder cannot be written to.
    """
    report, scores = folder / "backtest.html", folder / "backtest.csv"
    page = render(outcome)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        report.write_text(page, encoding="utf-8")
        frame(outcome).to_csv(scores, index=False)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}") from None
    return [report, scores]


def render(outcome: Outcome) -> str:
    """The whole report as one HTML document without any reference to another host."""
    environment = Environment(
        loader=PackageLoader("training", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(number=number, share=share, in_words=in_words)
    tally = outcome.intervals if outcome.intervals is not None and outcome.intervals.levels else None
    highest, lowest = series_rows(outcome)
    return environment.get_template("backtest.html.j2").render(
        outcome=outcome,
        metadata=outcome.metadata,
        good=outcome.verdict.startswith("Better than naive:"),
        span=_span(outcome),
        rows=method_rows(outcome),
        leads=lead_rows(outcome),
        highest=highest,
        lowest=lowest,
        intervals=tally.over_all() if tally else [],
        tally=tally,
        lead_time_plot=lead_time_plot(outcome),
        left_out=_left_out(outcome),
        coverage_plot=coverage_plot(outcome),
        skill_plot=skill_plot(outcome),
        examples_plot=examples_plot(outcome),
    )


def lead_time_plot(outcome: Outcome) -> Markup:
    """MAE by lead time of the model and the references, without those far worse than the better naive one."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=_WIDE, layout="constrained")
        axes = figure.subplots()
        errors = {method: _by_lead(outcome, method) for method in outcome.points}
        far = _left_out(outcome)
        for method, held in errors.items():
            if method in far:
                continue
            leading = method in (MODEL, outcome.reference)
            axes.plot(
                np.arange(1, outcome.horizon + 1),
                held,
                color=COLOURS[method],
                label=in_words(method),
                linewidth=2.4 if method == MODEL else 1.8 if leading else 1.1,
                linestyle="-" if leading else (0, (4, 2)),
                marker="o" if outcome.horizon <= 12 else None,
                markersize=4,
                zorder=3 if method == MODEL else 2,
            )
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="lead time, steps", ylabel="mean absolute error")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        return svg(figure, "Mean absolute error by lead time and method")


def coverage_plot(outcome: Outcome) -> Markup | None:
    """How many values lay in the intervals of each level, by lead time; None where the model has no intervals."""
    tally = outcome.intervals
    if tally is None or not tally.levels:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=_NARROW, layout="constrained")
        axes = figure.subplots()
        shades = mpl.colormaps["Blues"](np.linspace(0.9, 0.5, len(tally.levels)))
        for level, shade in zip(reversed(tally.levels), shades, strict=True):
            leads = np.arange(1, tally.horizon + 1)
            marker = "o" if tally.horizon <= 12 else None
            axes.axhline(level, color=shade, linewidth=1, linestyle=(0, (2, 2)))
            axes.plot(
                leads, tally.coverage_by_lead(level), color=shade, label=f"{level:g} %", marker=marker, markersize=4
            )
        lowest = min(float(tally.coverage_by_lead(level).min()) for level in tally.levels)
        axes.set_ylim(max(0.0, min(lowest, min(tally.levels)) - 8), 101)
        axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="lead time, steps", ylabel="values inside the interval")
        axes.legend(loc="lower right", ncols=len(tally.levels), title=None)
        return svg(figure, "Coverage of intervals by lead time and level")


def skill_plot(outcome: Outcome) -> Markup:
    """The distribution of skill over series; of a single one, errors from origin to origin."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=_NARROW, layout="constrained")
        axes = figure.subplots()
        if len(outcome.panel.series) > 1:
            _skill_by_series(axes, outcome)
            return svg(figure, "How many series have which skill")
        _error_by_origin(axes, outcome)
        return svg(figure, "Mean absolute error by origin")


def examples_plot(outcome: Outcome) -> Markup:
    """Forecasts against truth from origins spread evenly over all of them, features taken in turn, with intervals."""
    chosen = outcome.examples
    with mpl.rc_context(STYLE):
        rows = (len(chosen) + 1) // 2
        figure = Figure(figsize=(11.2, 2.5 * rows + 0.4), layout="constrained")
        grid = figure.subplots(rows, 2 if len(chosen) > 1 else 1, squeeze=False)
        for index, axes in enumerate(grid.flat):
            if index < len(chosen):
                _example(axes, outcome, chosen[index], feature=index % len(outcome.panel.features))
            else:
                axes.set_visible(False)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
        return svg(figure, "Forecasts against truth from several origins")


def _by_lead(outcome: Outcome, method: str) -> Values:
    tally = outcome.points[method]
    return np.array([tally.at(lead).mae for lead in range(1, outcome.horizon + 1)])


def _left_out(outcome: Outcome) -> list[str]:
    """The methods that the plot by lead time leaves out."""
    errors = {method: held.mae for method, held in outcome.scores.items()}
    limit = _FURTHEST * max(errors[outcome.reference], errors[MODEL])
    return [method for method, error in errors.items() if error > limit]


def _skill_by_series(axes: Axes, outcome: Outcome) -> None:
    skills = outcome.skill_by_series()
    known = np.clip(skills[np.isfinite(skills)], _LOWEST_SKILL, 1)
    low = float(known.min()) if len(known) else 0.0
    edges = np.linspace(min(low, 0.0), 1, _BARS + 1)
    edges = np.sort(np.append(edges[np.abs(edges) > 1e-9], 0.0))  # a bar is of one side of zero
    counts, _ = np.histogram(known, edges)
    colours = np.where(edges[:-1] < 0, COLOURS[NAIVE], COLOURS[MODEL])
    axes.set_axisbelow(True)
    axes.set_ylim(0, 1.18 * max(1, counts.max()))
    axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=colours, edgecolor="white", linewidth=0.5)
    if len(known):
        middle = float(np.median(known))
        axes.axvline(middle, color=TRUTH, linewidth=1.2)
        axes.annotate(
            f" median {100 * middle:.0f} %",
            (middle, 1.0),
            xycoords=("data", "axes fraction"),
            va="top",
            ha="left" if middle < 0.6 else "right",
            color=TRUTH,
        )
    axes.axvline(0, color=EDGE, linewidth=1)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=f"skill against {in_words(outcome.reference)}", ylabel="series")


def _error_by_origin(axes: Axes, outcome: Outcome) -> None:
    (origins,), (one,) = outcome.origins, outcome.panel.series
    places = origins if one.times is None else one.times[origins].to_numpy()
    marker = "o" if len(origins) < 20 else None
    for method in (outcome.reference, MODEL):
        colour, width = COLOURS[method], 1.6 if method == MODEL else 1.1
        errors = outcome.by_origin[method]
        axes.plot(places, errors, color=colour, linewidth=width, label=in_words(method), marker=marker, markersize=4)
    axes.set_ylim(bottom=0)
    if one.times is not None and len(origins) > 1:
        locator = AutoDateLocator(maxticks=5)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set(xlabel="origin", ylabel="mean absolute error")
    axes.legend()


def _example(axes: Axes, outcome: Outcome, example: Example, *, feature: int) -> None:
    origin, horizon = example.origin, outcome.horizon
    shown = min(origin + 1, max(_HISTORY * horizon, _LEAST_HISTORY))
    before, ahead = np.arange(1 - shown, 1), np.arange(1, horizon + 1)
    history = example.series.values[origin + 1 - shown : origin + 1, feature]
    axes.axvline(0, color=EDGE, linewidth=1)
    for index, (level, (lower, upper)) in enumerate(reversed(list(example.bounds.items()))):
        leads = ahead[: len(lower)]
        shade = 0.12 + 0.12 * index
        bounds = (lower[:, feature], upper[:, feature])
        if len(leads) > 1:
            axes.fill_between(leads, *bounds, color=COLOURS[MODEL], alpha=shade, linewidth=0, label=f"{level:g} %")
        else:
            axes.vlines(leads, *bounds, color=COLOURS[MODEL], alpha=2 * shade, linewidth=6, label=f"{level:g} %")
    axes.plot(before, history, color=QUIET, linewidth=1, label="context")
    truth = np.append(history[-1], example.actual[:, feature])
    axes.plot(np.append(0, ahead), truth, color=TRUTH, linewidth=1.3, label="truth")
    marker = "o" if horizon < 3 else None
    for method in (SEASONAL_NAIVE if SEASONAL_NAIVE in example.forecasts else NAIVE, MODEL):
        held = example.forecasts[method][:, feature]
        dashes, width = ("-", 2.0) if method == MODEL else ((0, (3, 2)), 1.2)
        axes.plot(
            ahead, held, color=COLOURS[method], linestyle=dashes, linewidth=width, label=in_words(method), marker=marker
        )
    panel = outcome.panel
    parts = [example.series.name] if len(panel.series) > 1 else []
    parts += [panel.features[feature]] if len(panel.features) > 1 or not parts else []
    when = f"step {origin}" if example.series.times is None else short(str(example.series.times[origin]))
    axes.set_title(f"{', '.join(parts)} · origin {when}")


def _span(outcome: Outcome) -> str:
    """From the first origin to the last."""
    stamps = [
        one.times[[held[0], held[-1]]]
        for one, held in zip(outcome.panel.series, outcome.origins, strict=True)
        if one.times is not None
    ]
    if not stamps:
        return ""
    first, last = min(held[0] for held in stamps), max(held[1] for held in stamps)
    return f"{short(str(first))} to {short(str(last))}" if first != last else short(str(first))
