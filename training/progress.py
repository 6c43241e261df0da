"""What a training run shows while it runs: its step in words, and bars for epochs and batches."""

from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_SILENCE: Final = 10.0  # seconds without a line about the backtest, where there is no terminal for a bar


class Bars:
    """Progress of a training run on a console, with what is left of it; without a terminal, one line an epoch.

    Use it as a context manager.
    """

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
        self._epochs_pace = Pace()
        self._backtest_pace = Pace()
        self._told_last = monotonic()
        self._members: list[Member] = []
        self._members_since = 0.0
        self._stage_paces: dict[str, Pace] = {}
        self._together: TaskID | None = None

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
        self._epochs_pace.begin()
        self._batches = self._shown(self._batches, "  batches", done, total)

    def epoch(self, number: int, total: int, training: float, validation: float | None) -> None:
        told = _losses(training, validation)
        self._epochs = self._shown(self._epochs, "epochs", number, total, told)
        left = self._epochs_pace.left(number, total)
        self._say_without_bars(f"epoch {number} of at most {total}: {told}{f'; at most {left} left' if left else ''}")

    def member(self, number: int, total: int) -> "Member":
        """A bar of its own for one of several networks that are fitted, below one for all of them."""
        together = self._together = self._shown(self._together, "networks", self._fitted(), total)
        self._members_since = self._members_since if self._members else monotonic()
        name = f"network {number} of {total}"
        task = self._shown(None, f"  {name}, epochs", 0, 1)

        def show(done: float, epochs: int, told: str | None) -> None:
            self._progress.update(task, completed=done, total=epochs, visible=done < epochs)
            self._progress.update(together, completed=self._fitted())
            if told is not None:
                self._progress.update(task, told=told)
                left = self._left_of_members(total)
                self._say_without_bars(
                    f"{name}, epoch {done:.0f} of at most {epochs}: {told}{f'; at most {left} left' if left else ''}"
                )

        self._members.append(Member(show))
        return self._members[-1]

    def backtest(self, done: int, total: int) -> None:
        for task in (self._epochs, self._batches, self._together):
            if task is not None:
                self._progress.update(task, visible=False)
        self._backtest = self._shown(self._backtest, "backtest", done, total)
        left = self._backtest_pace.left(done, total)
        if left and monotonic() - self._told_last > _SILENCE:
            self._told_last = monotonic()
            self._say_without_bars(f"backtest: {done:,} of {total:,} series, about {left} left")

    def _say_without_bars(self, line: str) -> None:
        if not self._console.is_terminal:
            self.say(line)

    def _fitted(self) -> float:
        """How many networks are fitted, parts of them included."""
        return sum(member.share for member in self._members)

    def _left_of_members(self, total: int) -> str:
        """How long all networks will take that are left, at the pace of the epochs of this run; empty at the end."""
        done = sum(member.fitted for member in self._members)
        limit = max(member.limit for member in self._members)
        left = sum(member.left for member in self._members) + (total - len(self._members)) * limit
        return in_words((monotonic() - self._members_since) / done * left) if done and left else ""

    def stage(self, name: str, done: int, total: int, told: str = "") -> None:
        """A bar of a name of its own, there until it is done.

        Without a terminal it is said now and then how long it will take, unless its name is indented: it is part of
        another.
        """
        left = self._stage_paces.setdefault(name, Pace()).left(done, total)
        if left and not name.startswith(" ") and monotonic() - self._told_last > _SILENCE:
            self._told_last = monotonic()
            self._say_without_bars(f"{name}: {done:,} of {total:,}, about {left} left")
        self._stages[name] = self._shown(self._stages.get(name), name, done, total, told)
        self._progress.update(self._stages[name], visible=done < total)

    def _shown(self, task: TaskID | None, name: str, done: float, total: int, told: str = "") -> TaskID:
        if task is None:
            task = self._progress.add_task(name, total=total, told=told)
        self._progress.update(task, completed=done, total=total, told=told)
        return task


class Pace:
    """How long what is left of a stage will take, at the pace of what has been done since it began."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._done_before: int | None = None

    def begin(self) -> None:
        """It begins now, unless it has begun."""
        if self._began is None:
            self._began = monotonic()

    def left(self, done: int, total: int) -> str:
        """In words, when one more of all has been done; empty before that can be told, and at the end."""
        begun = self._began is not None
        self.begin()
        if self._done_before is None:
            self._done_before = done - 1 if begun else done
        if self._began is None or done <= self._done_before or done >= total:
            return ""
        return in_words((monotonic() - self._began) / (done - self._done_before) * (total - done))


class Member:
    """Progress of one of several networks that are fitted."""

    def __init__(self, show: Callable[[float, int, str | None], None]) -> None:
        """`show` is told the epochs done, their limit, and after each of them its losses."""
        self.share = 0.0  # of its epochs that are done
        self.limit = 1
        self.fitted = 0  # epochs, in this run
        self._show = show
        self._epochs = 0

    @property
    def left(self) -> int:
        """Epochs, at most."""
        return self.limit - self._epochs if self.share < 1 else 0

    def batch(self, done: int, total: int) -> None:
        self._show(self._epochs + done / total, self.limit, None)

    def epoch(self, number: int, total: int, training: float, validation: float | None) -> None:
        self._epochs, self.limit, self.share = number, total, number / total
        self.fitted += 1
        self._show(number, total, _losses(training, validation))

    def done(self) -> None:
        """It is fitted, perhaps before its last epoch."""
        self.share = 1.0
        self._show(self.limit, self.limit, None)


def _losses(training: float, validation: float | None) -> str:
    """The losses of an epoch in words; closing epochs have none on validation."""
    return f"loss {training:.4f}" + ("" if validation is None else f", validation {validation:.4f}")


def in_words(seconds: float) -> str:
    """A time roughly, such as "40 s", "12 min" or "3 h"."""
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6_000 else f"{seconds / 3_600:.0f} h"
