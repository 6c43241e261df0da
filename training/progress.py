"""What a training run shows while it runs: its step in words, and bars for epochs and batches."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Bars:
    """Progress of a training run on a console; without a terminal, one line an epoch. Use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[told]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._epochs: TaskID | None = None
        self._batches: TaskID | None = None
        self._backtest: TaskID | None = None
        self._stages: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self._progress.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def batch(self, done: int, total: int) -> None:
        self._batches = self._shown(self._batches, "  batches", done, total)

    def epoch(self, number: int, total: int, training: float, validation: float) -> None:
        told = f"loss {training:.4f}, validation {validation:.4f}"
        self._epochs = self._shown(self._epochs, "epochs", number, total, told)
        if not self._console.is_terminal:
            self.say(f"epoch {number} of at most {total}: {told}")

    def backtest(self, done: int, total: int) -> None:
        for task in (self._epochs, self._batches):
            if task is not None:
                self._progress.update(task, visible=False)
        self._backtest = self._shown(self._backtest, "backtest", done, total)

    def stage(self, name: str, done: int, total: int, told: str = "") -> None:
        """A bar of a name of its own, there until it is done; nothing without a terminal."""
        self._stages[name] = self._shown(self._stages.get(name), name, done, total, told)
        self._progress.update(self._stages[name], visible=done < total)

    def _shown(self, task: TaskID | None, name: str, done: int, total: int, told: str = "") -> TaskID:
        if task is None:
            task = self._progress.add_task(name, total=total, told=told)
        self._progress.update(task, completed=done, total=total, told=told)
        return task
