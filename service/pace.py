"""The pace of a model: how long its next run is going to take, learned from the runs before it."""

from typing import Final

# How much the expected time may grow at once. A run that was held up by something else is not taken for the rule, and
# a machine that has become slower is believed after a few runs.
_GROWTH: Final = 1.25


class Pace:
    """Expected seconds of a run, by how many time steps it covers over all its rows.

    Runs that cover about as many steps (within a factor of two) are taken as equal. Where none such was seen, the next
    smaller one is scaled up, and where there is none such either, the next larger one counts: both err on the long
    side, for a run has costs that do not grow with it. Before the first run nothing is expected.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def expect(self, steps: int) -> float:
        """The seconds that a run over so many time steps is expected to take."""
        kind = steps.bit_length()
        known = self._seconds.get(kind)
        if known is not None:
            return known
        for less in range(kind - 1, 0, -1):
            known = self._seconds.get(less)
            if known is not None:
                return known * float(1 << (kind - less))
        return self._seconds[min(self._seconds)] if self._seconds else 0.0

    def learn(self, steps: int, seconds: float) -> None:
        """Take in how long a run over so many time steps took."""
        kind = steps.bit_length()
        known = self._seconds.get(kind)
        self._seconds[kind] = seconds if known is None else min(seconds, known * _GROWTH)
