"""A table of figures as it is read: our rows beside published ones, the best first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.accuracy.protocols import Measure, Protocol, Published
from benchmarks.accuracy.results import mean_of

_DIGITS: Final = {"sMAPE": 2, "MSIS": 2}


@dataclass(frozen=True)
class Row:
    """One row: who, the figures in the order of the measures, and whether it is ours."""

    name: str
    figures: tuple[float | None, ...]
    ours: bool = False


def rows(protocol: Protocol, found: Mapping[str, Any]) -> list[Row]:
    """Our rows and the published ones, the best first by the first measure, or by a later one where it is not told."""
    ours = [
        Row(_named(row), tuple(mean_of(row["figures"]).get(measure) for measure in protocol.measures), ours=True)
        for row in found["rows"].values()
    ]
    others = [Row(one.name, one.figures) for one in protocol.published]
    others += [
        Row(name.replace("_", " "), tuple(figures.get(measure) for measure in protocol.measures))
        for name, figures in found["references"].items()
        if not protocol.published
    ]
    measured = range(len(protocol.measures))

    def place(row: Row) -> tuple[int, float]:
        first = next((index for index in measured if row.figures[index] is not None), len(measured))
        return first, row.figures[first] or 0.0 if first < len(measured) else 0.0

    return sorted(ours + others, key=place)


def checks(protocol: Protocol, found: Mapping[str, Any]) -> list[tuple[Published, dict[Measure, tuple[float, float]]]]:
    """The published figures of references that are computed here, too: what was published, and what was computed."""
    return [
        (
            one,
            {
                measure: (published, found["references"][one.method][measure])
                for measure, published in zip(protocol.measures, one.figures, strict=True)
                if published is not None and measure in found["references"][one.method]
            },
        )
        for one in protocol.published
        if one.method in found["references"]
    ]


def in_pairs(pairs: Mapping[Measure, tuple[float, float]]) -> str:
    """What `checks` tells of one reference, in words: what was computed, and in brackets what was published."""
    return ", ".join(
        f"{measure} {number(measure, computed)} ({number(measure, published)})"
        for measure, (published, computed) in pairs.items()
    )


def cells(protocol: Protocol, row: Row) -> list[str]:
    """The figures of a row as text."""
    return [number(measure, figure) for measure, figure in zip(protocol.measures, row.figures, strict=True)]


def number(measure: Measure, figure: float | None) -> str:
    """A figure as text, a dash where there is none."""
    return "–" if figure is None else f"{figure:.{_DIGITS.get(measure, 3)}f}"


def as_text(protocol: Protocol, lines: Sequence[Row]) -> str:
    """The table in columns, for a console; our rows are marked."""
    told = [["", *protocol.measures]]
    told += [[("> " if row.ours else "  ") + row.name, *cells(protocol, row)] for row in lines]
    widths = [max(len(line[column]) for line in told) for column in range(len(told[0]))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in told
    )


def _named(row: Mapping[str, Any]) -> str:
    count = len(row["figures"])
    return f"{row['name']} (mean of {count} seeds)" if count > 1 else str(row["name"])
