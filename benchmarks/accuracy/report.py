"""`python -m benchmarks.accuracy.report`: write `docs/accuracy.md` from what the last runs found."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.accuracy.protocols import PROTOCOLS
from benchmarks.accuracy.results import COVERAGE, OURS, OWN_ONLY, RESULTS, kept
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

_LEVELS: Final = ("80", "95")
_COVERED: Final = (("coverage", ".1f"), ("score", ".2f"))

_REPEAT: Final = """\
## Repeat

`make bench-accuracy DATA=folder` fits every configuration in `benchmarks/accuracy/configs`, scores it and writes this
document anew. The folder holds the files as their publishers give them; one that is missing is named with what is
expected. For a single table, `python -m benchmarks.accuracy m4-hourly --data folder` in `.venv`, with `--seeds 3` for
several seeds, `--model models/m4-hourly` for a model that is fitted already, and `--validate` to choose by;
`python -m benchmarks.accuracy.coverage m4-hourly models/m4-hourly` says how often that model's intervals hold, with
`--own` how often they do without the errors in its file. The lab series and the carbon dioxide need no folder.
"""


def main() -> None:
    DOCUMENT.write_text(document(*found()), encoding="utf-8")
    print(f"wrote {DOCUMENT.relative_to(ROOT)}")


def found() -> tuple[dict[str, Any], dict[str, Any]]:
    """What is known of each table, and of how often intervals hold on it."""
    scores = {table: held for table in PROTOCOLS if (held := kept(table))}
    measured = [f"{table}{part}" for table in PROTOCOLS for part in ("", OWN_ONLY)]
    return scores, {name: held for name in measured if (held := kept(name, COVERAGE))}


def document(found: Mapping[str, Mapping[str, Any]], coverage: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole document, from what was found by table; a table that was not measured is left out."""
    parts = [
        _HEAD,
        *(_section(table, held) for table, held in found.items()),
        *([_coverage(coverage)] if coverage else []),
        _about(found),
        _LEFT_ALONE.read_text(encoding="utf-8"),
        _REPEAT,
    ]
    return "\n".join(parts)


def _section(table: str, found: Mapping[str, Any]) -> str:
    protocol = PROTOCOLS[table]
    lines = [[_bold(row), *cells(protocol, row)] for row in rows(protocol, found)]
    parts = [f"## {protocol.title}\n", protocol.told + "\n", _table(["", *protocol.measures], lines)]
    if compared := checks(protocol, found):
        parts += ["Computed here, and in brackets as published:\n"]
        parts += [f"- {one.name}: {in_pairs(pairs)}" for one, pairs in compared]
        parts.append("")
    remarks = RESULTS / f"{table}.md"  # what was tried beside, in words
    if remarks.is_file():
        parts.append(remarks.read_text(encoding="utf-8"))
    return "\n".join(parts)


def _coverage(found: Mapping[str, Mapping[str, Any]]) -> str:
    """How often intervals held, beside simple methods, and by lead time."""
    lines, by_lead = [], []
    for held in found.values():
        for name, one in held["methods"].items():
            told = [f"{one[what][level]:{form}}" for level in _LEVELS for what, form in _COVERED]
            lines.append([held["title"] if name == OURS else "", f"**{name}**" if name == OURS else name, *told])
        leads = _shown(held["horizon"])
        for level in _LEVELS:
            shares = held["methods"][OURS]["by_lead"][level]
            line = ", ".join(f"{lead}: {shares[lead - 1]:.0f}" for lead in leads)
            by_lead.append([held["title"] if level == _LEVELS[0] else "", f"{level} %", line])
    notes = [
        f"- {held['title']}: {held['origins']:,} origins; {held['model'].split(':')[0]}; {'; '.join(held['basis'])}."
        for held in found.values()
    ]
    heads = ["", "", *(f"{level} %: {what}" for level in _LEVELS for what in ("held, %", "score"))]
    return "\n".join(
        [
            "## How often intervals hold\n",
            "Over held-out origins and all lead times: how often what came lay in the interval, and the mean interval",
            "score (Winkler 1972) over what MASE divides by, of which less is better. Intervals rest on the errors of",
            "each window's own past where it is long enough, otherwise on the model file's. The simple methods make",
            "theirs in the same way, of their own errors before each origin. A model that was fitted on the series has",
            "seen a part of that past, and was better there than it is now: its errors are taken for as much larger as",
            "the validation part said when it was fitted. Where it says so, the file's errors were left out, and with",
            "them the series whose past is too short: what is left is what windows' own pasts are worth.\n",
            _table(heads, lines),
            "The model's by lead time, in percent:\n",
            _table(["", "level", "lead time: held"], by_lead, "---"),
            *notes,
            "",
        ]
    )


def _shown(horizon: int) -> list[int]:
    """Some lead times, the first and the last among them."""
    return sorted({1, 2, *(round(horizon * part / 6) for part in range(1, 7))} - {0})


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
