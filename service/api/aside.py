"""The process that reads large bodies for a worker, and what the two say to each other.

It keeps the question that it has read last, and is then asked for that question's windows, as the model that answers
it needs them. What it says of a question is no more than is needed beside the windows, and takes the worker no time
that grows with the body.

It ends when the worker does, or closes its pipe; signals are the worker's business.
"""

import pickle
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from service.api.faults import parse
from service.api.futures import futures_for
from service.api.windows import Windows, windows_for
from service.artifact import Metadata
from service.errors import LeadtimeError
from service.schemas import ForecastRequest, MultiStepRequest
from service.settings import Settings
from service.window import Values

LENGTH: Final = struct.Struct("<Q")
"""Before each message stands how many bytes it has."""

_STANDS_FOR_STEPS: Final = [0.0]


class Packed(NamedTuple):
    """Arrays (time, columns), one after another: as a list of thousands they would take long to unpickle."""

    numbers: Values
    """(all times, columns)"""
    lengths: npt.NDArray[np.int64]
    """How many steps each has."""

    @classmethod
    def of(cls, arrays: Sequence[Values]) -> "Packed":
        """Pack arrays of one number of columns, at least one."""
        return cls(np.concatenate(arrays), np.array([len(array) for array in arrays]))

    def unpacked(self) -> list[Values]:
        """The arrays again, as views."""
        first = int(self.lengths[0])
        if (self.lengths == first).all():
            return list(self.numbers.reshape(len(self.lengths), first, -1))
        ends = np.cumsum(self.lengths).tolist()
        return [self.numbers[start:end] for start, end in zip([0, *ends], ends, strict=False)]


class Taken(NamedTuple):
    """A question's windows and futures, as a model needs them."""

    windows: Packed
    as_rows: npt.NDArray[np.bool_]
    futures: Packed | LeadtimeError | None
    """None where the model takes none, and none is told."""


class Reading:
    """The question that was read last."""

    _question: ForecastRequest

    def __init__(self) -> None:
        self._one_step = TypeAdapter(ForecastRequest)
        self._multi_step = TypeAdapter(MultiStepRequest)

    def read(self, is_one_step: bool, body: bytes) -> ForecastRequest:
        """Read a body, and return the question without its steps, for which others stand.

        Raises:
            UnreadableBody, InvalidRequest: as `service.api.faults.parse` does.
        """
        question = parse(self._one_step, body) if is_one_step else parse(self._multi_step, body)
        self._question = question
        few: dict[str, Any] = {}
        for name in ("window", "future"):
            if getattr(question, name) is not None:
                few[name] = _STANDS_FOR_STEPS
        for name in ("windows", "futures"):
            if getattr(question, name) is not None:
                few[name] = [_STANDS_FOR_STEPS]
        origin = question.origin
        if isinstance(origin, list) and len(origin) != len(question.windows or ()):
            few["origin"] = range(len(origin))  # it is refused for its length, and may be as long as the body
        return question.model_copy(update=few)

    def take(self, metadata: Metadata, horizon: int, settings: Settings, steps: int | None) -> Taken:
        """The windows of the question that was read, and its futures, or why they are refused.

        Raises:
            InvalidRequest: as `service.api.windows.windows_for` does.
        """
        question = self._question
        windows = windows_for(question, metadata, horizon, settings, steps)
        futures: Packed | LeadtimeError | None = None
        if metadata.exogenous or question.future is not None or question.futures is not None:
            try:
                futures = Packed.of(futures_for(question, metadata, horizon))
            except LeadtimeError as error:
                futures = error
        return Taken(Packed.of(windows.arrays), np.array(windows.as_rows), futures)


class Aside:
    """A question's windows that were read in the other process, and its futures, which are asked for later."""

    def __init__(self, taken: Taken) -> None:
        self.windows = Windows(taken.windows.unpacked(), taken.as_rows.tolist())
        self._futures = taken.futures

    def futures_for(self, request: ForecastRequest, metadata: Metadata, horizon: int) -> list[Values]:
        """The future of each window's exogenous columns, each (horizon, exogenous).

        Raises:
            InvalidRequest: as `service.api.futures.futures_for` does.
        """
        if self._futures is None:
            return [np.empty((horizon, 0), np.float32)] * len(self.windows.arrays)
        if isinstance(self._futures, LeadtimeError):
            raise self._futures
        return self._futures.unpacked()


def message(content: object) -> bytes:
    """What is said, with its length before it."""
    packed = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(packed)) + packed


def answer(said: BinaryIO, told: BinaryIO) -> None:
    """Answer what is said until nobody says anything any more."""
    reading = Reading()
    ways: dict[str, Callable[..., object]] = {"read": reading.read, "take": reading.take}
    while head := said.read(LENGTH.size):
        way, arguments = pickle.loads(said.read(LENGTH.unpack(head)[0]))
        try:
            outcome = ways[way](*arguments)
        except LeadtimeError as error:
            outcome = error
        told.write(message(outcome))
        told.flush()


def main() -> None:
    """Answer the process that has started this one."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    answer(sys.stdin.buffer, sys.stdout.buffer)
