"""Requests a second of several servers, taken in turns, so that a machine that slows down slows all of them.

In each round every contestant is loaded once, one after the other, while all the other servers stand still. What is
told of a contestant is the median of its rounds, and ratios are medians of the ratios within a round.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.load import Load, LoadError, drive
from benchmarks.questions import Question, differs
from benchmarks.servers import Server


@dataclass(frozen=True, slots=True)
class Contestant:
    """One question to one server, or several in an order that is random."""

    name: str
    server: str
    question: Question
    wanted: Sequence[float] | None
    """The right answer; None where the answer is no forecast."""
    others: Sequence[Question] = ()
    """What is asked beside that question, and whose answers are not looked at."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where servers and the generator run; None where nothing can be pinned."""

    server: str | None
    generator: int | None


class Servers:
    """Servers of which one runs at a time, while the others stand still. Each is started when its first turn comes."""

    def __init__(self, starts: Mapping[str, Callable[[], AbstractContextManager[Server]]]) -> None:
        self._starts = starts
        self._running: dict[str, tuple[Server, ExitStack]] = {}
        self.restarts: dict[str, int] = {}
        """How often a server had to be started anew, because it failed."""

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, *error: object) -> None:
        for _, stack in self._running.values():
            stack.close()

    @contextmanager
    def turn_of(self, name: str) -> Iterator[Server]:
        """Let one server run until the block ends."""
        if name not in self._running:
            stack = ExitStack()
            self._running[name] = (stack.enter_context(self._starts[name]()), stack)
        server, _ = self._running[name]
        server.resume()
        try:
            yield server
        finally:
            server.pause()

    def restart(self, name: str) -> None:
        """End a server that has failed; its next turn starts it anew."""
        _, stack = self._running.pop(name)
        stack.close()
        self.restarts[name] = self.restarts.get(name, 0) + 1


def measure(
    servers: Servers,
    contestants: Sequence[Contestant],
    place: Place,
    *,
    connections: Sequence[int],
    rounds: int,
    seconds: int,
    tell: Callable[[str], None] = print,
) -> dict[int, dict[str, list[Load]]]:
    """Load every contestant with each number of connections, in each round.

    Returns:
        By number of connections and name of contestant, what each round gave.

    Raises:
        RuntimeError: an answer is wrong.
        LoadError: a server failed, and failed again after it was started anew.
    """
    found: dict[int, dict[str, list[Load]]] = {count: {one.name: [] for one in contestants} for count in connections}
    for turn in range(rounds):
        for count in connections:
            for contestant in contestants:
                try:
                    load = _turn(servers, contestant, place, count, seconds, warm=turn == 0)
                except (LoadError, OSError) as error:
                    tell(f"{contestant.name} is started anew: {error}")
                    servers.restart(contestant.server)
                    load = _turn(servers, contestant, place, count, seconds, warm=True)
                found[count][contestant.name].append(load)
                tell(
                    f"round {turn + 1}, {count:>2} connections: {contestant.name:<50} {load.rate:>9,.0f} /s  "
                    f"p50 {load.p50:.2f} ms  p99 {load.p99:.2f} ms"
                )
    return found


def summary(rounds: Mapping[str, Sequence[Load]]) -> dict[str, dict[str, Any]]:
    """The medians of each contestant, with the rates of all rounds."""
    return {
        name: {field: statistics.median(asdict(load)[field] for load in loads) for field in ("rate", "p50", "p99")}
        | {"rates": [round(load.rate, 1) for load in loads]}
        for name, loads in rounds.items()
    }


def ratio(rates: Sequence[float], of: Sequence[float]) -> float:
    """The median of the ratios within each round."""
    return statistics.median(one / other for one, other in zip(rates, of, strict=True))


def _turn(
    servers: Servers, contestant: Contestant, place: Place, connections: int, seconds: int, *, warm: bool
) -> Load:
    questions = [contestant.question, *contestant.others]
    with servers.turn_of(contestant.server) as server:
        _check(server, contestant)
        common: dict[str, Any] = {"connections": connections, "core": place.generator}
        if warm:
            drive(server.port, questions, seconds=1, **common)
        return drive(server.port, questions, seconds=seconds, **common)


def _check(server: Server, contestant: Contestant) -> None:
    found = server.ask(contestant.question)
    if contestant.wanted is None:
        return
    fault = differs(found, contestant.wanted)
    if fault is not None:
        raise RuntimeError(f"{contestant.name} answers wrongly: {fault}")
