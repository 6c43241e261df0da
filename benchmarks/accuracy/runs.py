"""One run: a model, fitted or given, scored by a protocol through the running service, and by the backtest."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks.accuracy.asking import ask, serving, supports
from benchmarks.accuracy.protocols import Protocol
from benchmarks.accuracy.scores import Figures, differ, of_answers, of_backtest
from service.artifact import FILE_NAME, Metadata
from service.engine import Engine
from service.errors import ArtifactError
from training.backtest import MODEL
from training.config import Config, read_config
from training.errors import DataError
from training.pipeline import train
from training.progress import Bars
from training.rolling import Outcome, read_for, run
from training.table import Table

CONFIGS: Final = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class Scored:
    """What one model scored: its figures, those of the references on the same origins, and what the model is."""

    figures: Figures
    references: dict[str, Figures]
    metadata: Metadata
    digest: str
    size: int  # bytes
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Fitted:
    """An artifact that was fitted, and how many seconds that took."""

    artifact: Path
    seconds: float


class ScoreError(Exception):
    """The service and the backtest do not come to the same figures."""


def configs_of(table: str) -> list[Path]:
    """The configurations that are fitted for a table: `<table>.toml`, and all in a folder of its name."""
    return [*CONFIGS.glob(f"{table}.toml"), *sorted((CONFIGS / table).glob("*.toml"))]


def configured(protocol: Protocol, table: Table, file: Path, seed: int | None) -> Config:
    """A committed configuration with what the protocol says of the data: all that is scored is its test part.

    Raises:
        ConfigError: the file is not a configuration.
    """
    own = read_config(file, {}).data
    data = protocol.data.model_dump(exclude_unset=True)
    horizon = None if own.horizon is not None else protocol.horizon
    return read_config(file, {"seed": seed, "data": {**data, "test_steps": protocol.span, "horizon": horizon}})


def fit(protocol: Protocol, table: Table, config: Config, output: Path) -> Fitted:
    """Fit a model as `python -m training fit` does, on what lies before the protocol's origins.

    Raises:
        TrainingError: the data or the configuration do not allow it.
    """
    begun = time.monotonic()
    with Bars(Console(stderr=True)) as bars:
        trained = train(table, config, output, resume=True, told=bars)
    return Fitted(trained.folder / FILE_NAME, time.monotonic() - begun)


def score(protocol: Protocol, table: Table, artifact: Path) -> Scored:
    """Score an artifact through the service, and see that the backtest scores it the same.

    Raises:
        TrainingError: the model cannot forecast these series.
        RuntimeError: the service does not answer with forecasts.
        ScoreError: the two differ.
    """
    try:
        engine = Engine.open(artifact)
    except ArtifactError as error:
        raise DataError(f"{artifact}: {error}") from None
    with Bars(Console(stderr=True)) as bars:
        outcome = _backtested(protocol, table, engine, bars)
        with serving(artifact) as server:
            answers = ask(server, engine, protocol, outcome.panel, outcome.origins, bars.backtest)
    figures = of_answers(protocol, outcome.panel, answers)
    if difference := differ(figures, of_backtest(protocol, outcome), engine.metadata):
        raise ScoreError(f"{artifact}: {difference}")
    return Scored(
        figures=figures,
        references={name: of_backtest(protocol, outcome, name) for name in outcome.points if name != MODEL},
        metadata=engine.metadata,
        digest=engine.digest,
        size=artifact.stat().st_size,
        notes=outcome.notes,
    )


def _backtested(protocol: Protocol, table: Table, engine: Engine, bars: Bars) -> Outcome:
    panel = read_for(engine, table, protocol.data)
    terms = protocol.terms
    if not supports(engine.metadata, protocol):
        terms = replace(terms, levels=None, basis="artifact")
    return run(engine, panel, terms, table.source, progress=bars.backtest)
