"""Fair shares: whose the work under way is, and who is to be refused first when there is more of it than can be done.

A client's share is the work under way over the number of clients that have any. Predicted waits are taken to be longer
for a client the more of it is its own, so that under overload one that floods the service is refused while others are
taken. It changes nothing for a client that is alone, nor for clients that ask alike: each has its share.
"""

from typing import Final

# How much longer than predicted a wait is taken to be by a client that has its share. Under a load that stays, the
# queue grows as long as it may: were that as long as is predicted to be in time, half of what is taken would be late.
_CAUTION: Final = 1.25

# And by one that has far more than its share. It may fill half of the time that its requests have, which keeps the
# models busy where the others ask little, and leaves room for those who come.
_MOST: Final = 2.0


class Shares:
    """The steps that each client has under way, in one process."""

    __slots__ = ("_steps", "_steps_of")

    def __init__(self) -> None:
        self._steps_of: dict[int, int] = {}
        self._steps = 0

    def add(self, client: int, steps: int) -> None:
        """Take in a request of so many steps, by the number of its client."""
        self._steps_of[client] = self._steps_of.get(client, 0) + steps
        self._steps += steps

    def remove(self, client: int, steps: int) -> None:
        """Know that such a request is answered, or given up."""
        self._steps -= steps
        left = self._steps_of[client] - steps
        if left:
            self._steps_of[client] = left
        else:
            del self._steps_of[client]

    def has_less(self, client: int, steps: int) -> bool:
        """Whether a client that would have so many more steps would still have clearly less than its share."""
        return self.caution(client, steps) <= 1.0

    def caution(self, client: int, steps: int) -> float:
        """How many times as long as predicted a client's wait is taken to be that would have so many more steps."""
        own = self._steps_of.get(client)
        if own is not None and len(self._steps_of) == 1:
            return _CAUTION
        clients = len(self._steps_of) + (own is None)
        share = (self._steps + steps) / clients
        return min(_MOST, max(1.0, _CAUTION * ((own or 0) + steps) / share))
