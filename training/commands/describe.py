"""`describe`: what an artifact says of itself."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.artifact import Metadata, Provenance
from service.errors import ArtifactError
from training.commands.scores import show_scores
from training.errors import DataError


def describe(file: Path, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Print what an artifact says of itself.

    Args:
        file: A model.onnx.
        json: Print the whole metadata as JSON.
    """
    from service.engine import Engine

    try:
        engine = Engine.open(file)
    except ArtifactError as error:
        raise DataError(f"{file}: {error}") from None
    console = Console()
    if json:
        console.out(engine.metadata.model_dump_json(indent=2), highlight=False)
        return
    _show_facts(console, engine.metadata, engine.digest)
    show_scores(console, engine.metadata)


def _show_facts(console: Console, metadata: Metadata, digest: str) -> None:
    training = metadata.training
    facts = {
        "model": f"{metadata.name}, version {metadata.version}",
        "description": metadata.description,
        "features": ", ".join(metadata.features),
        "known": ", ".join((*metadata.calendar, *metadata.exogenous)) or "nothing beforehand",
        "context": f"{metadata.context_length} steps, at least {metadata.minimum_window}",
        "frequency": metadata.frequency or "any",
        "season": str(metadata.season_length or "none known"),
        "state": f"{metadata.state_size} floats carried" if metadata.state_size else "none, the window is slid",
        "errors": f"{metadata.errors.origins:,} held-out errors per lead time" if metadata.errors else "no error table",
        "made": training.created,
        "data": training.data,
        "data digest": training.data_digest or "–",
        "networks": _networks(training) if training.members else "one",
        "fitted on": f"{training.observations:,} observations of {training.series:,} series",
        "libraries": ", ".join(f"{name} {version}" for name, version in training.libraries.items()),
        "file digest": digest,
    }
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    for fact, value in facts.items():
        grid.add_row(fact, Text(value))
    console.print(grid, highlight=False)


def _networks(training: Provenance) -> str:
    seeds = ", ".join(dict.fromkeys(str(member.seed) for member in training.members))
    return f"{len(training.members)} whose forecasts are combined, from the seeds {seeds}"
