"""`python -m benchmarks.accuracy`: from public series to a row of their table, by the protocol of those who made it.

Fits a committed configuration as `python -m training fit` does, runs the service with what it wrote, scores what the
service forecasts, sees that the backtest scores it the same, and prints the row beside published ones. What was found
is kept, and `python -m benchmarks.accuracy.report` writes `docs/accuracy.md` from it. `all` does so for every table.
"""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Final

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow tells of the processor at every start

from benchmarks.accuracy.protocols import PROTOCOLS, Protocol
from benchmarks.accuracy.results import RESULTS, keep, kept, mean_of, seed_of
from benchmarks.accuracy.runs import Scored, ScoreError, configs_of, configured, fit, score
from benchmarks.accuracy.tables import as_text, checks, in_pairs, number, rows
from benchmarks.questions import CACHE
from service.artifact import FILE_NAME
from training.config import read_config
from training.errors import DataError, TrainingError
from training.table import Table
from training.versions import artifact_of

MODELS: Final = CACHE / "accuracy" / "models"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; returns 0, 2 for wrong input, 1 where a score could not be had."""
    given = _arguments(arguments)
    try:
        for table in PROTOCOLS if given.table == "all" else [given.table]:
            _table(table, given)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, ScoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _arguments(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("table", choices=["all", *PROTOCOLS], help="what to forecast")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of public series (default: data)")
    parser.add_argument("--seeds", type=int, default=1, help="models to fit, each from a seed of its own (default: 1)")
    parser.add_argument("--config", type=Path, help="a TOML file to fit, instead of the committed ones")
    parser.add_argument("--only", default="", help="only configurations in whose file's name this occurs")
    parser.add_argument("--model", type=Path, help="a model.onnx, or a folder that holds one, to score without fitting")
    parser.add_argument("--label", help="what its row is called, with --model")
    parser.add_argument(
        "--validate", action="store_true", help="score one test part earlier, to choose by; nothing is kept"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder that results are kept in")
    given = parser.parse_args(arguments)
    if given.seeds < 1:
        parser.error("--seeds: must be at least 1")
    if given.model is not None and given.table == "all":
        parser.error("--model: name the table that it is scored on")
    return given


def _table(name: str, given: Namespace) -> None:
    protocol = PROTOCOLS[name].for_validation() if given.validate else PROTOCOLS[name]
    table = protocol.table(given.data)
    print(f"\n{protocol.title}\n{protocol.told}", flush=True)
    if given.validate:
        print(
            f"On validation: the same {protocol.held_back} steps earlier; origins of each series: {protocol.origins}."
        )
    if given.model is not None:
        if not given.model.exists():
            raise DataError(f"{given.model}: there is no {FILE_NAME} here, nor a version that holds one")
        scored = score(protocol, table, artifact_of(given.model))
        key = scored.metadata.name
        _told(name, protocol, given, key, given.label or f"the model {key}", [scored], [])
        return
    files = [given.config] if given.config is not None else configs_of(name)
    files = [file for file in files if given.only in file.stem]
    if not files:
        raise DataError(f"there is no configuration for {name} that is named so; name one with --config, or a --model")
    for file in files:
        _fitted(name, protocol, table, file, given)


def _fitted(name: str, protocol: Protocol, table: Table, file: Path, given: Namespace) -> None:
    """Fit and score a configuration with as many seeds as are asked for."""
    written = read_config(file, {})
    scored, seconds = [], []
    for seed in range(written.seed, written.seed + given.seeds):
        print(f"\nfitting {file.stem}, seed {seed}", flush=True)
        config = configured(protocol, table, file, seed)
        fitted = fit(protocol, table, config, MODELS / name / ("validation" if given.validate else "test") / file.stem)
        scored.append(score(protocol, table, fitted.artifact))
        seconds.append(fitted.seconds)
        print(f"{fitted.artifact}: {_line(protocol, scored[-1])}; fitted in {fitted.seconds:.0f} s", flush=True)
    _told(name, protocol, given, file.stem, written.description or written.name, scored, seconds)


def _told(
    name: str, protocol: Protocol, given: Namespace, key: str, told: str, scored: list[Scored], seconds: list[float]
) -> None:
    """Print our row beside the published ones, and keep it, unless it was for choosing by."""
    figures = mean_of([one.figures for one in scored])
    if given.validate:
        for method, held in scored[0].references.items():
            print(f"  {method}: {', '.join(f'{measure} {number(measure, held[measure])}' for measure in held)}")
        seeds = [seed_of(one.metadata) for one in scored]
        print(f"{key} on validation, seeds {seeds}: {', '.join(f'{m} {number(m, figures[m])}' for m in figures)}")
        return
    path = keep(name, key, told, scored, seconds, given.results)
    found = kept(name, given.results) or {}
    print()
    print(as_text(protocol, rows(protocol, found)))
    for one, pairs in checks(protocol, found):
        print(f"{one.name}, computed here (and published): {in_pairs(pairs)}")
    print(f"the service's figures are those of the backtest; kept in {path}", flush=True)


def _line(protocol: Protocol, scored: Scored) -> str:
    return ", ".join(f"{measure} {number(measure, figure)}" for measure, figure in scored.figures.items())


if __name__ == "__main__":
    sys.exit(main())
