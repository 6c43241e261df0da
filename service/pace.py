"""The pace of a model: how long its next run is going to take, learned from the runs before it."""

from typing import Final

# How much the expected time may grow at once. A run that was held up by something else is not taken for the rule, and
# a machine that has become slower is believed after a few runs.
_GROWTH: Final = 1.25

# Runs for which it is taken for true what a kind of run took that was not among them. Without an end to it, a kind that
# was held up once would be avoided for good: nobody would see that it has become quick.
_LESSONS_BELIEVED: Final = 256

# Runs between two looks at all that was learned.
_LESSONS_BETWEEN: Final = 8

# Runs of one kind, of n binary digits of time steps, have between 0.5 and 1 times 2 ** n of them.
_MIDDLE: Final = 0.75


class Pace:
    """Expected seconds of a run, by how many time steps it covers over all its rows.

    Runs that cover about as many steps (within a factor of two) are taken as equal. Where none such was seen, the next
    smaller one is scaled up, and where there is none such either, the next larger one counts: both err on the long
    side, for a run has costs that do not grow with it. What was not seen for long is expected to take no longer than
    that. Before the first run nothing is expected.
    """

    def __init__(self) -> None:
        self.lessons = 0
        """Runs that it has learned from."""
        self._seconds: dict[int, float] = {}
        self._learned: dict[int, int] = {}
        """The number of the last lesson of each kind."""
        self._least: dict[int, tuple[float, int]] = {}
        """What `least` has answered, and the number of lessons up to which that is good enough."""

    def expect(self, steps: int) -> float:
        """The seconds that a run over so many time steps is expected to take."""
        kind = steps.bit_length()
        known = self._seconds.get(kind)
        if known is not None and self.lessons - self._learned[kind] < _LESSONS_BELIEVED:
            return known
        for less in range(kind - 1, 0, -1):
            smaller = self._seconds.get(less)
            if smaller is not None:
                scaled = smaller * float(1 << (kind - less))
                return scaled if known is None else min(known, scaled)
        return self._seconds[min(self._seconds)] if self._seconds else 0.0

    def least(self, kind: int) -> float:
        """The seconds that each time step takes in runs of a kind: of so many binary digits of time steps.

        It is the least that was seen in such runs or smaller ones: a larger run is no worse, and one that was held up
        is no rule. Where no such run was seen, it is expected to take no longer than the largest smaller one.
        """
        held = self._least.get(kind)
        if held is not None and self.lessons < held[1]:
            return held[0]
        least = self._least_of(kind)
        # At first each run tells much, later each is like those before it.
        self._least[kind] = least, self.lessons + min(_LESSONS_BETWEEN, 1 + self.lessons // 4)
        return least

    def learn(self, steps: int, seconds: float) -> None:
        """Take in how long a run over so many time steps took."""
        self.lessons += 1
        kind = steps.bit_length()
        self._learned[kind] = self.lessons
        known = self._seconds.get(kind)
        self._seconds[kind] = seconds if known is None else min(seconds, known * _GROWTH)

    def _least_of(self, kind: int) -> float:
        known = {other: seconds for other, seconds in self._seconds.items() if other <= kind}
        if not known:
            smallest = min(self._seconds, default=0)
            return self._seconds[smallest] / (_MIDDLE * (1 << smallest)) if smallest else 0.0
        largest = max(known)
        unseen = known[largest] / (_MIDDLE * (1 << kind))
        return min(unseen, *(seconds / (_MIDDLE * (1 << other)) for other, seconds in known.items()))
