"""The backlog of a model: the steps that are yet to be run, and how long they are going to take.

Steps are of two kinds: those of windows, which are prefilled, and those ahead, which are decoded one a run. What a step
costs depends on how many others it shares its run with, and so on how long the queue is: a queue of thousands is done
in a fraction of what as many single runs would take. Where no run of such a size was seen yet, it is expected to take
no longer than the largest that was: the first of them tells, and until then nobody is refused without need.

What the loop does beside running models (it reads requests, writes answers, refuses), and whatever else keeps it from
them, is in the drag: how much longer the work has taken lately than its runs alone were expected to.
"""

import math
from typing import Final, NamedTuple

from service.pace import Pace

# Runs of a model after which it is known well enough to refuse by. The first ones are slower than any later one, and
# what they say of a single row, times the thousands that a request may have, would be minutes.
_ENOUGH_LESSONS: Final = 64
_LESSONS_BETWEEN: Final = 16

# How much of what was learned is left after a turn, and how much longer than expected a turn may be taken to have been.
_KEPT: Final = 0.95
_SURPRISE: Final = 4.0


class Work(NamedTuple):
    """What is asked of a model."""

    rows: int
    prefill: int
    """Time steps of the windows, as far as they are used; of a window that is slid, again for each step ahead."""
    decode: int
    """Steps ahead that are decoded, over all rows."""
    runs: int = 1
    """How often each window is run: once, or where it is slid for each step ahead."""


class Backlog:
    """What one model has yet to run."""

    __slots__ = (
        "_decode_kind",
        "_decode_seconds",
        "_most_rows",
        "_pace",
        "_prefill_kind",
        "_prefill_seconds",
        "_slides",
        "decode",
        "most_prefilled",
        "prefill",
        "rows",
        "turns",
        "worst_step",
    )

    def __init__(self, pace: Pace, most_prefilled: int, most_rows: int, *, slides: bool = False) -> None:
        """Expect runs to take what `pace` says, of at most so many time steps in prefill and rows in decode."""
        self._slides = slides
        self.most_prefilled = most_prefilled
        self.rows = 0
        """Windows of the requests that are not complete, of each as many as may be under way at once."""
        self.prefill = 0
        """Time steps of windows that have not been prefilled."""
        self.decode = 0
        """Steps ahead that have not been decoded."""
        self.turns = 0
        """The time steps that run before a request that comes now has its first turn."""
        self.worst_step = pace.least(1) or math.inf
        """The seconds that a step of either kind takes at most, as it was when the last run ended."""
        self._pace = pace
        self._most_rows = most_rows
        self._prefill_kind = self._decode_kind = -1
        self._prefill_seconds = self._decode_seconds = self.worst_step

    @property
    def is_known(self) -> bool:
        """Whether enough runs were seen to tell how long others will take."""
        return self._pace.lessons >= _ENOUGH_LESSONS

    @property
    def steps(self) -> int:
        """All steps that have not been run."""
        return self.prefill + self.decode

    def add(self, work: Work) -> int:
        """Take in what a request asks; return how many of its time steps run before others have their turn."""
        turn = min(work.prefill // work.runs, self.most_prefilled)
        self.rows += min(work.rows, self._most_rows)
        self.prefill += work.prefill
        self.decode += work.decode
        self.turns += turn
        return turn

    def remove(self, rows: int, turn: int) -> None:
        """Know that a request of so many windows, which had a turn of so many time steps, is complete."""
        self.rows -= min(rows, self._most_rows)
        self.turns -= turn

    def seconds(self) -> float:
        """How long all of it takes."""
        return self.prefill * self.prefill_step() + self.decode * self.decode_step()

    def seconds_with(self, work: Work, caution: float = 1.0) -> float:
        """How long it takes until a request that came now would be complete, its wait taken `caution` times as long.

        It has each of its turns after one of each of the others, and then decodes beside all of them, while windows of
        those that come later are prefilled. What slides advances side by side to its end, those that come later with
        it: in the place of each that is complete before, there will be another.
        """
        prefill_step, decode_step = self.prefill_step(work.prefill), self.decode_step(work.rows)
        own = work.prefill * prefill_step + work.decode * decode_step
        turns = work.runs * -(-work.prefill // work.runs // self.most_prefilled)
        first = turns * self.turns
        if not self._slides:
            first = min(first, self.prefill)
        decode_run = 0.0 if self._slides else min(self.rows, self._most_rows) * decode_step
        before = first * (prefill_step + decode_run / self.most_prefilled)
        run = min(self.prefill, self.most_prefilled) * prefill_step
        beside = work.decode / work.rows * (self.rows * decode_step + run)
        return own + caution * (before + beside)

    def prefill_step(self, more: int = 0) -> float:
        """The seconds of a time step, in runs as large as there are steps for; with so many more of them."""
        kind = min(self.prefill + more, self.most_prefilled).bit_length()
        if kind != self._prefill_kind:
            self._prefill_kind, self._prefill_seconds = kind, self._pace.least(kind)
        return self._prefill_seconds

    def decode_step(self, more: int = 0) -> float:
        """The seconds of a step ahead of one row, in runs of all the rows there are; with so many more of them."""
        kind = min(self.rows + more, self._most_rows).bit_length()
        if kind != self._decode_kind:
            self._decode_kind, self._decode_seconds = kind, self._pace.least(kind)
        return self._decode_seconds

    def count_off(self, prefill: int, decode: int) -> float:
        """Know that so many steps have been run; return how long they were expected to take."""
        expected = 0.0
        if prefill:
            expected += prefill * self.prefill_step()
            self.prefill = max(0, self.prefill - prefill)
        if decode:
            expected += decode * self.decode_step()
            self.decode = max(0, self.decode - decode)
        # What the pace has learned is asked anew after each of the first runs, and now and then of so many.
        lessons = self._pace.lessons
        if lessons < _ENOUGH_LESSONS or lessons % _LESSONS_BETWEEN == 0:
            self._prefill_kind = self._decode_kind = -1
        self.worst_step = max(self._prefill_seconds, self._decode_seconds)
        return expected


class Drag:
    """How many times as long as expected the work takes, as it was of late."""

    __slots__ = ("_expected", "_taken", "factor")

    def __init__(self) -> None:
        self._expected = self._taken = 0.0
        self.factor = 1.0
        """Seconds taken by a second of work expected."""

    def learn(self, expected: float, taken: float) -> None:
        """Take in how long a turn took from the one before it; a single long one is not taken for the rule."""
        if expected <= 0.0:
            return
        taken = min(taken, _SURPRISE * self.factor * expected) if self._expected else taken
        self._expected = self._expected * _KEPT + expected
        self._taken = self._taken * _KEPT + taken
        self.factor = self._taken / self._expected
