"""The plots of the benchmarks: a bar for each server, and what becomes of requests under overload."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

_OURS: Final = "Leadtime"
_REFERENCE: Final = "bare reference"
_INK: Final = "#1f2933"
_COLOURS: Final = {_OURS: "#0b7285", _REFERENCE: "#99b8bf"}
_OTHERS: Final = "#c4cad0"
_TUTORIAL: Final = "#d9822b"
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 10,
    "text.color": _INK,
    "svg.hashsalt": "leadtime",
    "axes.titlesize": 11,
}


def draw_overload(found: Mapping[str, Any], path: Path) -> None:
    """Draw goodput, as a share of the capacity, and the time of accepted requests over what is offered."""
    milliseconds = found["deadline"] * 1000
    with mpl.rc_context(_STYLE):
        figure, (goodput, accepted) = plt.subplots(1, 2, figsize=(11, 3.4))
        for name, one in found["servers"].items():
            times = [point["times"] for point in one["points"]]
            line: dict[str, Any] = {
                "marker": "o",
                "markersize": 4,
                "color": _COLOURS.get(name, _TUTORIAL),
                "label": name,
            }
            goodput.plot(times, [point["share"] for point in one["points"]], **line)
            spread = [[outcome["share"] for outcome in point["rounds"]] for point in one["points"]]
            goodput.fill_between(
                times, list(map(min, spread)), list(map(max, spread)), color=line["color"], alpha=0.15, linewidth=0
            )
            accepted.plot(times, [point["accepted_p99"] or float("nan") for point in one["points"]], **line)
        accepted.axhline(milliseconds, color=_OTHERS, linestyle="--", linewidth=1, zorder=0)
        accepted.text(0.5, milliseconds, "deadline", va="bottom", fontsize=8.5)
        accepted.set_yscale("log")
        accepted.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        accepted.yaxis.set_major_formatter("{x:g}")
        accepted.yaxis.set_minor_formatter(NullFormatter())
        goodput.set_ylim(0)
        goodput.set_title("Answers in time, as a share of the capacity", loc="left", fontweight="bold")
        accepted.set_title("99 % of the answers came within, ms", loc="left", fontweight="bold")
        for axis in (goodput, accepted):
            axis.set_xlabel("offered, as a multiple of the capacity")
            axis.spines[["top", "right"]].set_visible(False)
        goodput.legend(frameon=False, loc="lower left")
        figure.tight_layout(w_pad=3)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def draw(bars: Mapping[str, Sequence[tuple[str, float, float]]], path: Path) -> None:
    """Draw a panel for each load from (server, requests a second, how many times as quick the service is)."""
    with mpl.rc_context(_STYLE):
        most = max(len(rows) for rows in bars.values())
        figure, axes = plt.subplots(1, len(bars), figsize=(11, 0.42 * most + 1.1), squeeze=False)
        for axis, (load, rows) in zip(axes[0], bars.items(), strict=True):
            _panel(axis, load, sorted(rows, key=lambda row: row[1]))
        figure.text(
            0.01, 0.015, "× : how many times as many the service answers. One core, 16 connections.", fontsize=8.5
        )
        figure.tight_layout(rect=(0, 0.035, 1, 1), w_pad=3)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _panel(axis: Any, load: str, rows: Sequence[tuple[str, float, float]]) -> None:
    names = [name for name, _, _ in rows]
    rates = [rate for _, rate, _ in rows]
    axis.barh(names, rates, color=[_COLOURS.get(name, _OTHERS) for name in names], height=0.72)
    for place, (name, rate, times) in enumerate(rows):
        label = f"{rate:,.0f}" if name == _OURS else f"{rate:,.0f}   {times:.1f} ×"
        axis.text(rate + max(rates) * 0.012, place, label, va="center", fontweight="bold" if name == _OURS else None)
    axis.set_title(f"{load[0].upper()}{load[1:]}: requests a second", loc="left", fontweight="bold")
    axis.set_xlim(0, max(rates) * 1.28)
    axis.xaxis.set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    axis.spines["left"].set_color(_OTHERS)
    for label in axis.get_yticklabels():
        if label.get_text() == _OURS:
            label.set_fontweight("bold")
