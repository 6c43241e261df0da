"""`python -m benchmarks.accuracy.coverage TABLE MODEL`: how often intervals hold on held-out origins, by lead time.

The model's rest on what the service would take: the errors of each window's own past, or the artifact's where the past
is too short. Beside them stand simple methods, whose intervals are made in the same way of their own errors. With
`--own`, the artifact's errors are taken from it first: what is left is what windows' own pasts are worth by themselves,
where they are long enough.
"""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import scoringrules
from rich.console import Console

from benchmarks.accuracy.protocols import PROTOCOLS, Protocol
from benchmarks.accuracy.results import COVERAGE, OURS, OWN_ONLY
from benchmarks.results import machine
from service.engine import Engine
from service.errors import ArtifactError
from service.intervals import bounds, margins, own_errors, own_origins, steps_useful
from training.backtest import in_words, naive_rules
from training.baselines import (
    Origins,
    Rule,
    Values,
    best_average,
    drift,
    moving_average,
)
from training.errors import DataError, TrainingError
from training.export import write_metadata
from training.metrics import seasonal_spread, spread_before
from training.panel import Series
from training.progress import Bars
from training.rolling import Outcome, read_for, run
from training.versions import artifact_of

LEVELS: Final = (80.0, 95.0)
_MOST_ORIGINS: Final = 500  # of one series
_FEWEST_NEEDED: Final = 39  # errors, for the higher level


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one model on one table; returns 0, or 2 for wrong input."""
    parser = ArgumentParser(prog="python -m benchmarks.accuracy.coverage", description=__doc__)
    parser.add_argument("table", choices=[*PROTOCOLS], help="what to forecast")
    parser.add_argument("model", type=Path, help="a model.onnx, or a folder that holds one")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of public series (default: data)")
    parser.add_argument("--own", action="store_true", help="leave the artifact's own errors out")
    given = parser.parse_args(arguments)
    try:
        protocol = thinned(PROTOCOLS[given.table])
        found = measured(protocol, given.data, artifact_of(given.model), own=given.own)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ArtifactError as error:
        print(f"error: {given.model}: {error}", file=sys.stderr)
        return 2
    path = COVERAGE / f"{given.table}{OWN_ONLY if given.own else ''}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    for name, one in found["methods"].items():
        held = ", ".join(
            f"{level} %: {one['coverage'][level]:.1f}, {one['score'][level]:.4g}" for level in one["score"]
        )
        print(f"{name}: {held}")
    print(f"kept in {path}")
    return 0


def thinned(protocol: Protocol) -> Protocol:
    """The protocol with as many origins in its test part as tell anything, not in step with a day or a week.

    Fewer where it has very many, and more where its windows do not overlap: twenty origins say little of a share.
    """
    last = (protocol.origins - 1) * protocol.stride
    stride = -(-(last + 1) // _MOST_ORIGINS)
    while stride > 1 and any(np.gcd(stride, season) > 1 for season in (7, 24)):
        stride += 1
    return replace(protocol, origins=1 + last // stride, stride=stride)


def measured(protocol: Protocol, folder: Path, artifact: Path, *, own: bool = False) -> dict[str, Any]:
    """Coverage by lead time and interval scores, of the model and of simple methods on the same origins.

    With `own`, the artifact's errors are left out, and so are the series whose past has too few of its own.

    Raises:
        TrainingError: the data are not there, or not the model's.
        ArtifactError: the model cannot be opened, or fails.
    """
    table = protocol.table(folder)
    engine = _without_errors(artifact) if own else Engine.open(artifact)
    panel = read_for(engine, table, protocol.data)
    if own:
        panel = replace(panel, series=tuple(one for one in panel.series if _has_own(engine, one, protocol)))
    with Bars(Console(stderr=True)) as bars:
        terms = replace(protocol.terms, levels=LEVELS, basis="window")
        outcome = run(engine, panel, terms, table.source, progress=bars.backtest)
    if outcome.intervals is None:
        raise DataError(f"{artifact}: there are no errors that intervals could rest on")
    found = machine()
    return {
        "title": f"{protocol.title}, windows' own errors alone" if own else protocol.title,
        "model": engine.metadata.description,
        "basis": [note for note in outcome.notes if note.startswith(("intervals", "no intervals"))],
        "origins": outcome.total,
        "horizon": outcome.horizon,
        "methods": {OURS: _of_model(outcome), **_of_simple_methods(outcome)},
        "machine": {part: found[part] for part in ("processor", "cores", "python", "commit")},
        "date": found.get("date"),
    }


def _without_errors(artifact: Path) -> Engine:
    with TemporaryDirectory() as folder:
        copy = Path(copyfile(artifact, Path(folder) / artifact.name))
        write_metadata(copy, Engine.open(copy).metadata.model_copy(update={"errors": None}))
        return Engine.open(copy)


def _has_own(engine: Engine, one: Series, protocol: Protocol) -> bool:
    """Whether all of a series up to its first origin is long enough for errors of its own."""
    steps, season = len(one.values) - protocol.span, engine.metadata.season_length
    return bool(own_origins(steps, engine.context_length, protocol.horizon, season, _FEWEST_NEEDED, plenty=False))


def _of_model(outcome: Outcome) -> dict[str, Any]:
    assert outcome.intervals is not None
    scores = {f"{one.level:g}": one for one in outcome.intervals.over_all()}
    return {
        "coverage": {level: one.coverage for level, one in scores.items()},
        "score": {level: one.msis for level, one in scores.items()},
        "by_lead": {f"{level:g}": list(outcome.intervals.coverage_by_lead(level)) for level in LEVELS},
    }


def _of_simple_methods(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """By method; each makes its intervals of the errors that it has made before, as far back as the service looks."""
    gathered: dict[str, list[Mapping[str, Any]]] = {}
    for one, origins in zip(outcome.panel.series, outcome.origins, strict=True):
        for name, rule in _rules(one, int(origins[0]), outcome.season, outcome.horizon).items():
            gathered.setdefault(name, []).append(_held(one, origins, rule, outcome))
    return {name: _together(parts) for name, parts in gathered.items()}


def _rules(one: Series, first: int, season: int | None, horizon: int) -> dict[str, Rule]:
    past = one.values[: first + 1]
    length = best_average(past, season, horizon)
    rules = {in_words(name): rule for name, rule in naive_rules(season).items()}
    rules["moving average"] = lambda values, origins, steps: moving_average(values, origins, steps, length)
    return rules | {"drift": drift}


def _held(one: Series, origins: Origins, rule: Rule, outcome: Outcome) -> dict[str, Any]:
    """Hits and scaled interval scores, summed over origins: by level, (lead times,) each."""
    horizon, season = outcome.horizon, outcome.season
    back = season or 1
    forecasts = rule(one.values, origins, horizon).astype(np.float32)
    actual = one.values[origins[:, None] + 1 + np.arange(horizon)]
    below, above = ({level: np.empty(forecasts.shape) for level in LEVELS} for _ in range(2))
    for row, origin in enumerate(origins):
        steps = min(int(origin) + 1, steps_useful(back, horizon))
        places = own_origins(steps, back, horizon, season, _FEWEST_NEEDED, plenty=False) or range(back, steps - horizon)
        past = np.asarray(places) + int(origin) + 1 - steps
        made = rule(one.values, past, horizon).astype(np.float32)
        came = one.values[past[:, None] + 1 + np.arange(horizon)].astype(np.float32)
        unit = np.ones((len(past), came.shape[2]), np.float32)
        ranked = np.sort(own_errors(came, made, unit, unit[0]), axis=0)
        for level in LEVELS:
            below[level][row], above[level][row] = margins(ranked, level)
    scale = np.zeros((len(origins), forecasts.shape[2]))
    spread = _spread(one, origins, outcome)
    found: dict[str, Any] = {"points": len(origins) * forecasts.shape[2]}
    for level in LEVELS:
        non_negative = outcome.metadata.non_negative
        lower, upper = bounds(forecasts, below[level], above[level], scale, non_negative=non_negative)
        score = scoringrules.interval_score(actual.ravel(), lower.ravel(), upper.ravel(), 1 - level / 100)
        hits = (actual >= lower) & (actual <= upper)
        scaled = np.reshape(score, actual.shape) / spread[:, None]
        found[f"{level:g}"] = (hits.sum(axis=(0, 2)), scaled.sum(axis=(0, 2)))
    return found


def _spread(one: Series, origins: Origins, outcome: Outcome) -> Values:
    """What MASE and MSIS divide by, (origins or 1, features)."""
    if outcome.own_past:
        return spread_before(one.values, origins, outcome.mase_season)
    return seasonal_spread(one.values[: int(origins[0]) + 1], outcome.mase_season)[None]


def _together(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    points = sum(part["points"] for part in parts)
    found: dict[str, Any] = {"coverage": {}, "score": {}, "by_lead": {}}
    for level in (f"{one:g}" for one in LEVELS):
        hits = sum(part[level][0] for part in parts)
        score = sum(part[level][1] for part in parts)
        found["coverage"][level] = float(100 * hits.mean() / points)
        found["score"][level] = float(score.mean() / points)
        found["by_lead"][level] = [float(100 * one / points) for one in hits]
    return found


if __name__ == "__main__":
    sys.exit(main())
