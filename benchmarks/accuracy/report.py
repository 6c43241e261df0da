"""`python -m benchmarks.accuracy.report`: write `docs/accuracy.md` from what the last runs found."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.accuracy.protocols import PROTOCOLS, Protocol
from benchmarks.accuracy.results import RESULTS, kept
from benchmarks.accuracy.tables import Row, cells, checks, in_pairs, rows
from benchmarks.questions import ROOT

DOCUMENT: Final = ROOT / "docs" / "accuracy.md"

_HEAD: Final = """\
# How well it forecasts

Public series, forecast by the protocols of those who made their tables, so that figures can be compared. Rows in bold
are Leadtime's: each was scored through `POST /forecast/multi-step` of a running service, and the backtest came to the
same figures. All other rows are as published or, where nobody has published any, the backtest's references. Less is
better. What was chosen was chosen on data before the part that is scored here. The bundled model was fitted on none of
these series.
"""

# Of a user's first run, measured once: no table has it.
_LEFT_ALONE: Final = RESULTS / "left-alone.md"

_REPEAT: Final = """\
## Repeat

`make bench-accuracy DATA=folder` fits every configuration in `benchmarks/accuracy/configs`, scores it and writes this
document anew. The folder holds the files as their publishers give them; one that is missing is named with what is
expected. For a single table, `python -m benchmarks.accuracy m4-hourly --data folder` in `.venv`, with `--seeds 3` for
several seeds, `--model models/m4-hourly` for a model that is fitted already, and `--validate` to choose by. The lab
series and the carbon dioxide need no folder.
"""


def main() -> None:
    DOCUMENT.write_text(document({table: held for table in PROTOCOLS if (held := kept(table))}), encoding="utf-8")
    print(f"wrote {DOCUMENT.relative_to(ROOT)}")


def document(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole document, from what was found by table; a table that was not measured is left out."""
    parts = [
        _HEAD,
        *(_section(PROTOCOLS[table], held) for table, held in found.items()),
        _about(found),
        _LEFT_ALONE.read_text(encoding="utf-8"),
        _REPEAT,
    ]
    return "\n".join(parts)


def _section(protocol: Protocol, found: Mapping[str, Any]) -> str:
    lines = [[_bold(row), *cells(protocol, row)] for row in rows(protocol, found)]
    parts = [f"## {protocol.title}\n", protocol.told + "\n", _table(["", *protocol.measures], lines)]
    if compared := checks(protocol, found):
        parts += ["Computed here, and in brackets as published:\n"]
        parts += [f"- {one.name}: {in_pairs(pairs)}" for one, pairs in compared]
        parts.append("")
    return "\n".join(parts)


def _about(found: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for table, held in found.items():
        for key, row in held["rows"].items():
            fitted = f"{max(row['seconds']) / 60:.1f} min" if row["seconds"] else "–"
            seeds = ", ".join("–" if seed is None else str(seed) for seed in row["seeds"])
            machine = row["machine"]
            lines.append(
                [
                    table,
                    key,
                    seeds,
                    fitted,
                    f"{row['size'] / 1e6:.2f} MB",
                    row["date"],
                    f"{machine['processor']}, {machine['cores']} cores, {machine['commit']}",
                ]
            )
    heads = ["table", "model", "seeds", "fitted in", "file", "measured", "where, with which version"]
    return "\n".join(["## Runs\n", "Other work ran on the same cores.\n", _table(heads, lines, "---")])


def _bold(row: Row) -> str:
    return f"**{row.name}**" if row.ours else row.name


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]], align: str = "---:") -> str:
    told = [heads, ["---", *[align for _ in heads[1:]]], *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in told) + "\n"


if __name__ == "__main__":
    main()
