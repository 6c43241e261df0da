"""The networks of an artifact, each fitted from a seed of its own, several at a time in processes of their own.

A network of the usual sizes gains little from a second core, and several of them gain all of it. Each process computes
with one thread, so that what it finds does not depend on how many run beside it.
"""

import math
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from service.cores import usable_cores
from training.autoregression import fit_autoregression
from training.config import Config
from training.errors import FittingError, TrainingError
from training.panel import Panel
from training.parts import Split

# TensorFlow is imported where a network is made: a process that fits has to hide its messages and limit its threads
# before that, and one that only waits for others needs none.
if TYPE_CHECKING:
    from training.fit import Fitted, History, Weights
    from training.model import Forecaster

_STOPPING_SECONDS: Final = 10.0


class MemberTold(Protocol):
    """Who is told of the fitting of one of several networks."""

    def batch(self, done: int, total: int) -> None: ...

    def epoch(self, number: int, total: int, training: float, validation: float | None) -> None: ...

    def done(self) -> None: ...


class Told(Protocol):
    """Who is told of the fitting of one network, or of several."""

    def batch(self, done: int, total: int) -> None: ...

    def epoch(self, number: int, total: int, training: float, validation: float | None) -> None: ...

    def member(self, number: int, total: int) -> "MemberTold": ...


@dataclass(frozen=True)
class Run:
    """How the fitting from one seed went, and the weights of its best epochs by their number."""

    seed: int
    history: "History"
    kept: "dict[int, Weights]"
    closed: "Weights | None"


@dataclass(frozen=True)
class Members:
    """The fitted networks as one, and how the fitting of each went.

    Attributes:
        network: what is served.
        judged: the same before the closing epochs, which has not learnt from validation data.
        runs: those of each seed.
    """

    network: "Forecaster"
    judged: "Forecaster"
    runs: tuple[Run, ...]

    @property
    def histories(self) -> "list[History]":
        """The losses of each run."""
        return [run.history for run in self.runs]

    @property
    def epochs(self) -> list[tuple[Run, int]]:
        """The run and the epoch that each member is of, in the members' order."""
        return [(run, epoch) for run in self.runs for epoch in run.kept]


def fit_members(
    panel: Panel, split: Split, config: Config, *, checkpoints: Path, told: Told, jobs: int | None = None
) -> Members:
    """Fit the networks that a configuration asks for, and make one of them.

    Args:
        panel: the series.
        split: their parts.
        config: network, fitting, and how many seeds.
        checkpoints: folder of the state of each run after each epoch; runs that have one there go on from it.
        told: is told of the progress of each run.
        jobs: how many are fitted at a time, where there are several; one for each core if not given. What they become
            does not depend on it.

    Raises:
        FittingError: a process ended before it was done, or a network has diverged from the beginning.
    """
    if config.ensemble.seeds == 1:
        from training.fit import fit

        fitted = fit(panel, split, config, checkpoint=_checkpoint(checkpoints, config.seed), progress=told)
        runs = [_run_of(config, fitted)]
    else:
        runs = _Workshop(panel, split, config, checkpoints, told).run(jobs or usable_cores())
    for run in runs:
        _refuse_diverged(run)
    judged = network = _together(panel, split, config, [held for run in runs for held in run.kept.values()])
    if config.fitting.closing_epochs:
        closed = [run.closed for run in runs if run.closed is not None]
        network = _together(panel, split, config, closed, closing=True)
    return Members(network, judged, tuple(runs))


def _refuse_diverged(run: Run) -> None:
    if not any(map(math.isfinite, run.history.validation)):
        raise FittingError(
            f"the network of seed {run.seed} has diverged: after no epoch its loss is a number. Give "
            "fitting.learning_rate a smaller number (--learning-rate auto finds one), leave fitting.clip_norm above 0, "
            "or let network.scaling scale the data"
        )


def _run_of(config: Config, fitted: "Fitted") -> Run:
    return Run(config.seed, fitted.history, fitted.kept, fitted.closed)


def _checkpoint(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}.npz"


def _together(
    panel: Panel, split: Split, config: Config, weights: "list[Weights]", *, closing: bool = False
) -> "Forecaster":
    from training.ensemble import Ensemble
    from training.fit import unfitted

    network = unfitted(panel, split, config)
    regression = None
    if config.ensemble.autoregression is not None:
        logarithms = config.network.transform == "log"
        regression = fit_autoregression(
            panel, split, config.ensemble.autoregression, logarithms=logarithms, closing=closing
        )
    if len(weights) > 1 or regression is not None:
        return Ensemble.of(network, weights, config.ensemble.combine, regression)
    network.set_weights(weights[0])
    return network


@dataclass(frozen=True)
class _Worker:
    """A process that fits one network."""

    seed: int
    process: BaseProcess
    progress: MemberTold


class _Workshop:
    """Fits one network for each seed, each in a process."""

    def __init__(self, panel: Panel, split: Split, config: Config, checkpoints: Path, told: Told) -> None:
        self._panel = panel
        self._split = split
        self._config = config
        self._checkpoints = checkpoints
        self._told = told
        self._running: dict[Connection, _Worker] = {}
        self._done: dict[int, Run] = {}

    def run(self, jobs: int) -> list[Run]:
        """Fit them all, at most `jobs` at a time; the runs in the order of their seeds."""
        waiting = deque(enumerate(self._config.seeds, start=1))
        try:
            while waiting or self._running:
                while waiting and len(self._running) < jobs:
                    self._start(*waiting.popleft())
                for connection in wait(list(self._running)):
                    assert isinstance(connection, Connection)
                    self._hear(connection)
        finally:
            self._stop()
        return [self._done[seed] for seed in self._config.seeds]

    def _start(self, number: int, seed: int) -> None:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        # From 'spawn', because a copy of a process in which TensorFlow has threads may hang.
        process = multiprocessing.get_context("spawn").Process(
            target=_work,
            args=(theirs, self._panel, self._split, _of_seed(self._config, seed), self._checkpoints),
            name=f"seed {seed}",
            daemon=True,
        )
        with _interrupts_held_back():
            process.start()
        theirs.close()
        self._running[ours] = _Worker(seed, process, self._told.member(number, self._config.ensemble.seeds))

    def _hear(self, connection: Connection) -> None:
        worker = self._running[connection]
        try:
            what, told = connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            raise FittingError(_ended_early(worker)) from None
        if what == "batch":
            worker.progress.batch(*told)
        elif what == "epoch":
            worker.progress.epoch(*told)
        elif what == "failed":
            raise told
        else:
            self._done[worker.seed] = told
            worker.progress.done()
            del self._running[connection]
            connection.close()
            worker.process.join()

    def _stop(self) -> None:
        """End what still runs; a checkpoint appears whole or not at all, so that any moment is good."""
        for worker in self._running.values():
            worker.process.terminate()
        for connection, worker in self._running.items():
            worker.process.join(_STOPPING_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            connection.close()


def _of_seed(config: Config, seed: int) -> Config:
    """The configuration of a run from one seed."""
    ensemble = config.ensemble.model_copy(update={"seeds": 1})
    return config.model_copy(update={"seed": seed, "ensemble": ensemble})


def _ended_early(worker: _Worker) -> str:
    code = worker.process.exitcode or 0
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return (
        f"the process that fitted seed {worker.seed} ended before it was done ({how}), perhaps for want of memory: the "
        f"same command goes on from the last finished epochs, and with --jobs 1 one at a time"
    )


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let a process that is started never hear of Ctrl-C, which the terminal tells all of them: this one ends it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Teller:
    """Tells the process that waits how far this one is."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def batch(self, done: int, total: int) -> None:
        self._connection.send(("batch", (done, total)))

    def epoch(self, number: int, total: int, training: float, validation: float | None) -> None:
        self._connection.send(("epoch", (number, total, training, validation)))


def _work(connection: Connection, panel: Panel, split: Split, config: Config, checkpoints: Path) -> None:
    """Fit one network, in a process of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what goes wrong is told through the connection
    with suppress(BrokenPipeError):  # nobody waits any longer
        try:
            connection.send(("done", _fitted_alone(connection, panel, split, config, checkpoints)))
        except BrokenPipeError:
            raise
        except (TrainingError, OSError, MemoryError) as error:
            connection.send(("failed", error))
        except Exception:
            connection.send(("failed", RuntimeError(traceback.format_exc())))


def _fitted_alone(connection: Connection, panel: Panel, split: Split, config: Config, checkpoints: Path) -> Any:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from training.fit import fit

    checkpoint = _checkpoint(checkpoints, config.seed)
    return _run_of(config, fit(panel, split, config, checkpoint=checkpoint, progress=_Teller(connection)))
