"""The first of several processes: it starts the workers, watches them, and replaces those that are gone.

It serves nothing, and so has little that can go wrong. It holds the sockets that the workers take connections from, one
for each worker's place. What waits at the socket of a worker that is gone, or does not answer, another one takes until
its successor serves: no connection is lost that no worker has taken.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Final, Literal, NamedTuple

from service.channel import Channel
from service.listeners import refuse_new
from service.metrics import Metrics
from service.process import Process, how_it_ended
from service.starter import Starter
from service.watchdog import BEAT_SECONDS, HUNG

FAILED: Final = 3
"""The exit code where no worker could be started."""

WORKERS_SERVING: Final = "leadtime_workers_serving"
WORKERS_REPLACED: Final = "leadtime_workers_replaced"

# A worker that has been silent for so long may be busy; others take its new connections meanwhile.
_QUIET_SECONDS: Final = 2.0
# How soon a worker is started again when it dies soon after its start, again and again.
_FIRST_PAUSE_SECONDS: Final = 0.25
_LONGEST_PAUSE_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 1.0
_SOON_SECONDS: Final = 10.0
# At a stop: until the workers have taken what had come, and how much longer than they were given they may need.
_ACCEPTING_SECONDS: Final = 0.3
_OVERTIME_SECONDS: Final = 5.0
_LAST_WORDS_SECONDS: Final = 2.5
_REAP_SECONDS: Final = 0.01

_log: Final = logging.getLogger("leadtime.supervisor")

Reason = Literal["died", "hung", "asked"]


class Patience(NamedTuple):
    """How long things may take, in seconds."""

    notice: float
    """From the announcement of a stop to the first refused connection."""
    drain: float
    """From then on to the end of what is under way."""
    hang: float
    """From a worker's last sign of life to its end; 0: for good."""


@dataclass(eq=False)
class _Worker:
    """One worker, from its start to its end."""

    place: int
    process: Process
    channel: Channel
    serves: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    is_due: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether there has to be another in its place: it has ended, or asks to be let go."""
    silence: float = -inf
    """Seconds since it was last heard of; it may take its time until it says its first word."""
    was_silent: bool = False
    """Whether it was killed because nothing was heard of it."""

    @property
    def takes_connections(self) -> bool:
        """Whether it takes what comes now."""
        return self.serves.is_set() and not self.ended.is_set() and self.silence < _QUIET_SECONDS

    @property
    def has_hung(self) -> bool:
        """Whether it has ended because it stood still."""
        return self.was_silent or self.process.returncode == HUNG

    @property
    def end(self) -> str:
        """How it has ended, in words."""
        code = self.process.returncode
        if self.has_hung:
            return "it stood still"
        return "it has not ended" if code is None else how_it_ended(code)

    def __str__(self) -> str:
        return f"worker {self.place + 1} (process {self.process.pid})"


class Supervisor:
    """The workers of a service."""

    def __init__(
        self, starter: Starter, listeners: Sequence[socket.socket], workers: int, patience: Patience, folder: Path
    ) -> None:
        """Keep so many workers, which take connections from the listeners; what is counted of them goes to `folder`."""
        self._starter = starter
        self._listeners = listeners
        self._places = workers
        self._patience = patience
        self._metrics = Metrics(folder)
        self._alive: set[_Worker] = set()
        self._current: dict[int, _Worker] = {}
        self._stand_ins: dict[int, _Worker] = {}
        self._looks: dict[int, tuple[_Worker, str, set[_Worker]]] = {}
        self._looks_asked = 0
        self._burials: set[asyncio.Task[None]] = set()
        self._has_served = False
        self._is_stopping = False
        self._stop_asked = asyncio.Event()
        self._in_a_hurry = asyncio.Event()
        self._none_left = asyncio.Event()
        self._notice = patience.notice
        self._fault: str | None = None

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._ask_to_stop, self._patience.notice)
        loop.add_signal_handler(signal.SIGINT, self._ask_to_stop, 0.0)
        tasks = [loop.create_task(self._keep(place)) for place in range(self._places)]
        watch = loop.create_task(self._watch())
        await self._stop_asked.wait()
        self._is_stopping = True
        await _cancel(*tasks)
        self._starter.close()
        await self._stop()
        await _cancel(watch)
        self._metrics.close()
        if self._fault is not None:
            _log.error("%s", self._fault)
            return FAILED
        return 0

    def _ask_to_stop(self, notice: float) -> None:
        if self._stop_asked.is_set():
            self._in_a_hurry.set()
        self._notice = notice
        self._stop_asked.set()

    # The workers' lives

    async def _keep(self, place: int) -> None:
        """Keep a worker in a place."""
        deaths = 0
        while True:
            began = asyncio.get_running_loop().time()
            try:
                worker = await self._start(place)
            except OSError as error:
                # Neither processes nor memory nor files are to be had at the moment.
                _log.error("no worker can be started (%s): tried again in %g s", error.strerror, _RETRY_SECONDS)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            await _first(worker.serves, worker.ended)
            if worker.serves.is_set():
                former = self._current.get(place)
                self._current[place] = worker
                self._share_out()
                if former is not None:
                    former.channel.say("stop")
                await worker.is_due.wait()
            elif not self._has_served:
                self._give_up(worker)
                return
            if not worker.ended.is_set() and worker.is_due.is_set():
                self._count("asked")
                continue
            reason: Reason = "hung" if worker.has_hung else "died"
            self._count(reason)
            soon = asyncio.get_running_loop().time() - began < _SOON_SECONDS
            deaths = deaths + 1 if soon else 0
            pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** (deaths - 2), _LONGEST_PAUSE_SECONDS) if deaths > 1 else 0.0
            _log.error("%s: %s; another one is started%s", worker, worker.end, f" in {pause:g} s" if pause else "")
            await asyncio.sleep(pause)

    async def _start(self, place: int) -> _Worker:
        """Start a process."""
        ours, theirs = Channel.pair()
        try:
            process = await self._starter.start(place, theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = _Worker(place, process, ours)
        self._alive.add(worker)
        ours.listen(lambda words: self._hear(worker, words), lambda: self._lose(worker))
        ours.say("start")
        return worker

    def _lose(self, worker: _Worker) -> None:
        """Note that a worker has ended, or is about to: only its process closes its end of the channel."""
        burial = asyncio.get_running_loop().create_task(self._bury(worker))
        self._burials.add(burial)
        burial.add_done_callback(self._burials.discard)

    async def _bury(self, worker: _Worker) -> None:
        while worker.process.poll() is None:
            await asyncio.sleep(_REAP_SECONDS)
        worker.channel.close()
        self._alive.discard(worker)
        worker.ended.set()
        worker.is_due.set()
        for number in list(self._looks):
            self._note_look(number, worker)
        self._share_out()
        if self._is_stopping and not self._alive:
            self._none_left.set()

    def _give_up(self, worker: _Worker) -> None:
        """End the service: what keeps its first worker from serving would keep every other one."""
        self._fault = f"{worker} could not start ({worker.end}): the service ends"
        self._in_a_hurry.set()
        self._stop_asked.set()

    # What the workers say

    def _hear(self, worker: _Worker, words: list[str]) -> None:
        worker.silence = 0.0
        match words:
            case ["serving"]:
                self._has_served = True
                worker.serves.set()
                _log.info("%s serves", worker)
            case ["relieve"] if not self._is_stopping and self._current.get(worker.place) is worker:
                _log.info("%s was asked to stop, and is replaced", worker)
                worker.is_due.set()
            case ["look", name]:
                self._have_others_look(worker, name)
            case ["looked", number]:
                self._note_look(int(number), worker)
            case _:  # a sign of life
                pass

    def _have_others_look(self, worker: _Worker, name: str) -> None:
        """Have all others look at models and keys, and tell the one who asks when they have."""
        self._looks_asked += 1
        others = {other for other in self._alive if other is not worker and other.serves.is_set()}
        self._looks[self._looks_asked] = worker, name, others
        for other in others:
            other.channel.say("look", self._looks_asked)
        self._note_look(self._looks_asked, worker)

    def _note_look(self, number: int, worker: _Worker) -> None:
        if number not in self._looks:
            return
        asking, name, missing = self._looks[number]
        missing.discard(worker)
        if not missing:
            asking.channel.say("looked", name)
            del self._looks[number]

    # What is seen of the workers

    async def _watch(self) -> None:
        """Look at the workers again and again. Rounds are counted, and not time: none passes while all are stopped."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            for worker in list(self._alive):
                if worker.process.poll() is not None:
                    self._lose(worker)  # somebody else may have been given its end of the channel
                    continue
                worker.silence += BEAT_SECONDS
                # It looks at itself as well, and can tell where it stands: it has a little more time for that.
                if 0 < self._patience.hang < worker.silence - _QUIET_SECONDS:
                    worker.was_silent = True
                    worker.process.kill()
            self._starter.tend()
            self._share_out()

    def _share_out(self) -> None:
        """Have the connections of each place taken: by its own worker, or by another while that takes none."""
        able = [worker for worker in self._current.values() if worker.takes_connections]
        self._metrics.gauge(WORKERS_SERVING).set(len(able))
        if self._is_stopping or len(self._listeners) == 1:
            return
        for place, worker in self._current.items():
            before = self._stand_ins.get(place)
            now = None if worker.takes_connections or not able else able[place % len(able)]
            if before is now:
                continue
            if before is not None:
                before.channel.say("leave", place)
                del self._stand_ins[place]
            if now is not None:
                now.channel.say("take", place)
                self._stand_ins[place] = now

    def _count(self, reason: Reason) -> None:
        self._metrics.counter(WORKERS_REPLACED, reason=reason).add()

    # The end

    async def _stop(self) -> None:
        """Have all workers stop, with as much time as they were given; kill those that need more."""
        if not self._alive:
            return
        for worker in self._alive:
            if not worker.serves.is_set():
                worker.process.kill()
        self._tell_all("announce")
        if self._notice:
            _log.info("stopping: not ready from now on, and no new connections in %g s", self._notice)
            await self._wait(self._notice)
        for listener in self._listeners:
            refuse_new(listener)
        self._tell_all("stop")
        await self._wait(_ACCEPTING_SECONDS)
        for listener in self._listeners:
            listener.close()
        await self._wait(self._patience.drain + _OVERTIME_SECONDS)
        self._tell_all("end")
        await _first(self._none_left, seconds=_LAST_WORDS_SECONDS)
        for worker in self._alive:
            _log.warning("%s did not end, and is killed", worker)
            worker.process.kill()
        await self._none_left.wait()

    def _tell_all(self, word: str) -> None:
        for worker in self._alive:
            worker.channel.say(word)

    async def _wait(self, seconds: float) -> None:
        """Wait so long, but not when all workers are gone, nor when asked a second time to stop."""
        await _first(self._in_a_hurry, self._none_left, seconds=seconds)


async def _first(*events: asyncio.Event, seconds: float | None = None) -> None:
    """Wait until one of several things has happened."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
