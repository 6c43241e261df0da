"""One training run, from a table to a version in the folder of models."""

import hashlib
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from service.artifact import FILE_NAME, Member, Metadata, Provenance, Range
from service.engine import Engine
from training.backtest import MODEL, Evaluation, backtest
from training.calibration import error_table
from training.config import Config
from training.data import read_panel
from training.errors import Interrupted
from training.panel import Panel
from training.parts import Split, split, suited
from training.report import render, still_improving
from training.table import Table
from training.timeline import in_words
from training.uncertainty import error_inflation
from training.versions import check_output, publish, staging, writing

if TYPE_CHECKING:
    from training.members import Members, MemberTold

REPORT_NAME: Final = "report.html"

_CHECKPOINTS: Final = ".checkpoints"
_LIBRARIES: Final = (
    "leadtime",
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "onnx",
    "onnxruntime",
    "numpy",
    "pandas",
)
_NAMED: Final = 5


class Told(Protocol):
    """Who is told of a run's progress."""

    def say(self, line: str) -> None: ...

    def batch(self, done: int, total: int) -> None: ...

    def epoch(self, number: int, total: int, training: float, validation: float | None) -> None: ...

    def member(self, number: int, total: int) -> "MemberTold": ...

    def backtest(self, done: int, total: int) -> None: ...

    def stage(self, name: str, done: int, total: int, told: str = "") -> None: ...


@dataclass(frozen=True)
class Trained:
    """A finished run: the folder of the version that it wrote, and what the artifact in it says of itself."""

    folder: Path
    metadata: Metadata


def train(table: Table, config: Config, output: Path, *, resume: bool, told: Told, jobs: int | None = None) -> Trained:
    """Check the data, fit the networks, export them, backtest the artifact, and publish it with its report.

    Nothing is written before the data have been checked. A run that was interrupted is taken up again from its last
    epoch by one with the same data and configuration, unless `resume` is false. `jobs` is how many networks are fitted
    at a time; see `training.members`.

    Raises:
        DataError: the data cannot be fitted on.
        OutputError: the output folder cannot be written to.
        FittingError: a network has diverged, or a process that fitted one ended before it was done.
        ExportError: the network cannot be exported faithfully.
        Interrupted: by the keyboard or a signal.
    """
    panel = read_panel(table, config)
    config = suited(config, min(len(one.values) for one in panel.series), panel.season)
    parts = split(panel, config)
    for note in panel.notes:
        told.say(note)
    check_output(output, config.name)
    checkpoints = _checkpoints(output, config, panel)
    try:
        with writing(output):
            if not resume:
                shutil.rmtree(checkpoints, ignore_errors=True)
            elif _begun(checkpoints):
                told.say("going on from the last epoch of an interrupted run (--no-resume begins afresh)")
            trained = _train(table, panel, parts, config, output, checkpoints, told, jobs)
    except KeyboardInterrupt:
        if _begun(checkpoints):
            raise Interrupted("interrupted: the same command goes on from the last finished epoch") from None
        _forget(checkpoints)  # a learning rate that nothing was fitted with yet
        raise Interrupted("interrupted: nothing was written") from None
    _forget(checkpoints)
    return trained


@contextmanager
def without_messages() -> Iterator[None]:
    """Keep what TensorFlow's libraries write to standard error from users: no setting of theirs stops all of it."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _train(
    table: Table,
    panel: Panel,
    parts: Split,
    config: Config,
    output: Path,
    checkpoints: Path,
    told: Told,
    jobs: int | None,
) -> Trained:
    # TensorFlow takes seconds to import: not before the data are known to be good.
    with without_messages():
        from training.export import export, write_metadata
        from training.fit import validation_loss
        from training.members import fit_members
        from training.sweep import with_a_rate
        from training.windows import minimum_window

    config = with_a_rate(panel, parts, config, checkpoints, told)
    fitted = fit_members(panel, parts, config, checkpoints=checkpoints, told=told, jobs=jobs)
    if advice := still_improving(fitted.histories, config.fitting.epochs):
        told.say(advice)
    minimum = minimum_window(config.network.context_length, panel.season)
    metadata = _metadata(table, panel, parts, config, fitted, minimum)
    with staging(output) as staged:
        told.say("exporting, and checking that the artifact computes what the network does")
        artifact = staged / FILE_NAME
        export(fitted.network, metadata, artifact)
        engine = Engine.open(artifact)
        evaluation = backtest(engine, panel, parts, progress=told.backtest)
        judged = _before_closing(fitted, metadata, staged) or engine
        errors, inflation = error_table(judged, panel, parts), error_inflation(judged, panel, parts)
        training = metadata.training.model_copy(
            update={
                "validation_loss": _finite(validation_loss(fitted.judged, panel, parts, config)),
                "members": _alone(fitted, metadata, panel, parts, staged, told),
            }
        )
        found = {"backtest": evaluation.scores, "errors": errors, "error_inflation": inflation, "training": training}
        metadata = metadata.model_copy(update=found)
        finish = _finisher(staged, metadata, panel, parts, config, fitted, evaluation, write_metadata)
        folder = publish(staged, output / config.name, finish)
    return Trained(folder, metadata.model_copy(update={"version": folder.name}))


def _before_closing(fitted: "Members", metadata: Metadata, staged: Path) -> Engine | None:
    """The network that has not learnt from validation data, as an artifact of its own; None if the served one has not.

    Errors on data that were learnt from would be too small for intervals.
    """
    from training.export import export

    if fitted.judged is fitted.network:
        return None
    artifact = staged / "judged.onnx"
    export(fitted.judged, metadata, artifact)
    engine = Engine.open(artifact)
    artifact.unlink()
    return engine


def _alone(
    fitted: "Members", metadata: Metadata, panel: Panel, parts: Split, staged: Path, told: Told
) -> tuple[Member, ...]:
    """The networks of an ensemble with the scores that each has alone, as an artifact of its own; none for one."""
    from training.ensemble import Ensemble
    from training.export import export

    if not isinstance(fitted.network, Ensemble):
        return ()
    found: list[Member] = []
    artifact = staged / "member.onnx"
    for network, (run, epoch) in zip(fitted.network.members, fitted.epochs, strict=True):
        told.say(f"scoring network {len(found) + 1} of {len(fitted.network.members)} alone")
        export(network, metadata.model_copy(update={"state_size": network.state_size}), artifact)
        scores = backtest(Engine.open(artifact), panel, parts, progress=told.backtest).scores
        found.append(
            Member(
                seed=run.seed,
                epoch=epoch,
                validation_loss=_finite(run.history.validation[epoch - 1]),
                one_step=scores.one_step[MODEL],
                multi_step=scores.multi_step[MODEL],
            )
        )
    artifact.unlink()
    return tuple(found)


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None


def _finisher(
    staged: Path,
    metadata: Metadata,
    panel: Panel,
    parts: Split,
    config: Config,
    fitted: "Members",
    evaluation: Evaluation,
    write_metadata: Callable[[Path, Metadata], None],
) -> Callable[[str], None]:
    def finish(version: str) -> None:
        told = metadata.model_copy(update={"version": version})
        write_metadata(staged / FILE_NAME, told)
        report = render(told, panel, parts, fitted.histories, evaluation, epoch_limit=config.fitting.epochs)
        (staged / REPORT_NAME).write_text(report, encoding="utf-8")

    return finish


def _checkpoints(output: Path, config: Config, panel: Panel) -> Path:
    digest = hashlib.sha256(f"{config.model_dump_json()}\n{panel.digest}".encode()).hexdigest()
    return output / _CHECKPOINTS / digest[:16]


def _forget(checkpoints: Path) -> None:
    shutil.rmtree(checkpoints, ignore_errors=True)
    with suppress(OSError):
        checkpoints.parent.rmdir()  # unless other runs have checkpoints there


def _begun(checkpoints: Path) -> bool:
    """Whether a run has finished an epoch."""
    return any(checkpoints.glob("*.npz"))


def _metadata(
    table: Table, panel: Panel, parts: Split, config: Config, fitted: "Members", minimum_window: int
) -> Metadata:
    source = Path(table.source).name
    return Metadata(
        name=config.name,
        version="1",
        description=config.description or _description(source, panel, config, len(fitted.epochs)),
        context_length=config.network.context_length,
        minimum_window=minimum_window,
        features=panel.features,
        state_size=fitted.network.state_size,
        frequency=panel.frequency,
        season_length=panel.season,
        calendar=panel.calendar,
        exogenous=panel.exogenous,
        non_negative=all(float(one.values.min()) >= 0 for one in panel.series),
        logarithms=config.network.transform == "log",
        ranges=_ranges(panel, parts),
        training=Provenance(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            data=f"{source}: {'; '.join(panel.notes)}",
            data_digest=panel.digest,
            series=len(panel.series),
            observations=len(panel.features) * sum(part.train_end for part in parts.boundaries),
            configuration=config.model_dump(mode="json"),
            libraries=library_versions(),
        ),
    )


def _ranges(panel: Panel, parts: Split) -> tuple[Range, ...]:
    """What each feature ranges over in the parts that are fitted on."""
    fitted = [one.values[: part.train_end] for one, part in zip(panel.series, parts.boundaries, strict=True)]
    low = np.min([values.min(axis=0) for values in fitted], axis=0)
    high = np.max([values.max(axis=0) for values in fitted], axis=0)
    return tuple(Range(low=float(least), high=float(most)) for least, most in zip(low, high, strict=True))


def _description(source: str, panel: Panel, config: Config, count: int) -> str:
    features = ", ".join(panel.features[:_NAMED]) + (", …" if len(panel.features) > _NAMED else "")
    many = f"{len(panel.series)} series of " if len(panel.series) > 1 else ""
    spacing = "" if panel.frequency is None else f", frequency {in_words(panel.frequency)}"
    network = f"A {config.network.summary}"
    if count > 1:
        network = f"The {config.ensemble.combine} of {count} networks, each a {config.network.summary}"
    if config.ensemble.autoregression is not None:
        network += f", and a linear autoregression over {config.ensemble.autoregression} steps"
    return f"{network}, fitted on {many}{features} in {source}{spacing}."[:2000]


def library_versions() -> dict[str, str]:
    """Versions of the libraries that make an artifact, those that are installed."""
    found = {}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
