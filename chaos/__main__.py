"""`python -m chaos`: break things on purpose, and see whether the service keeps its promises.

Each kind starts services of its own on the loopback. What is found is printed, and kept in `chaos/results`, from where
`python -m chaos.report` writes `docs/chaos.md`. The exit code is 1 where a promise was not kept.
"""

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

from chaos.checks import Check, Options, checks_in
from chaos.kinds import KINDS
from chaos.results import RESULTS, keep
from chaos.service import ServiceFailed

_HELP: Final = {
    "rate": "requests a second while the service is reloaded, restarted and killed",
    "reloads": "versions put there, every fourth of them bad",
    "restarts": "restarts behind the balancer",
    "kills": "workers killed",
    "patience": "seconds that a request may take before it counts as failed",
    "seconds": "seconds that each bad client goes on at a time",
    "rounds": "turns that each bad client has",
    "requests": "mutated requests",
    "files": "mutated artifacts and tables",
    "minutes": "minutes of the soak",
    "seed": "what mutations are drawn from",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; returns 0, or 1 where a promise was not kept."""
    given = _arguments(arguments)
    options = Options(**{field.name: getattr(given, field.name) for field in fields(Options)})
    told: dict[str, list[Check]] = {}
    for kind in KINDS if given.kind == "all" else [given.kind]:
        print(f"\n{KINDS[kind].TITLE}", flush=True)
        begin = time.monotonic()
        try:
            found = KINDS[kind].run(options)
        except ServiceFailed as error:
            print(f"{kind}: {error}", file=sys.stderr)
            told[kind] = [Check("the service", "failed", "runs", False)]
            continue
        told[kind] = checks_in(found)
        print(as_text(told[kind]))
        for failure in found["failures"]:
            print(f"  {failure}")
        path = keep(kind, {**found, "took_seconds": time.monotonic() - begin}, given.results)
        print(f"kept in {path}", flush=True)
    print("\n" + "\n".join(f"{kind}: {_summary(checks)}" for kind, checks in told.items()))
    return int(not all(check.holds for checks in told.values() for check in checks))


def as_text(checks: Sequence[Check]) -> str:
    """The checks as a table for a terminal."""
    rows = [("kept" if check.holds else "BROKEN", check.what, check.found, check.promised) for check in checks]
    widths = [max(len(row[place]) for row in rows) for place in range(3)]
    return "\n".join(
        f"  {kept:<{widths[0]}}  {what:<{widths[1]}}  {found:>{widths[2]}}  ({promised})"
        for kept, what, found, promised in rows
    )


def _arguments(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("kind", nargs="?", choices=["all", *KINDS], default="all", help="what to do (default: all)")
    for field in fields(Options):
        kind = type(field.default)
        parser.add_argument(
            f"--{field.name}",
            type=kind,
            default=field.default,
            metavar="N",
            help=f"{_HELP[field.name]} (default: {field.default:,})",
        )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder that results are kept in")
    return parser.parse_args(arguments)


def _summary(checks: Sequence[Check]) -> str:
    broken = [check.what for check in checks if not check.holds]
    return "all kept" if not broken else f"{len(broken)} of {len(checks)} broken: {'; '.join(broken)}"


if __name__ == "__main__":
    sys.exit(main())
