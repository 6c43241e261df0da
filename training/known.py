"""What is known of steps beforehand, as a network reads it: the calendar in waves and places, columns in one scale.

In raw units it comes into the graph, as `service.artifact` says; here is how it is told to the layers. An hour or a day
of the year lies next to the following one, and is told by waves of its cycle, and of a half, a third, … of that; a
weekday, a month or a day of the month is none of the others, and is told by its place. Columns are centred and scaled
by constants of the training part.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from service.calendar import CalendarField

if TYPE_CHECKING:
    from training.native import Recorder
    from training.operations import TensorFlow

    Operations = TensorFlow | Recorder

DAYS: Final = 366
"""Days of a year, each of which a network may learn something of."""

_CYCLES: Final[dict[CalendarField, float]] = {"hour": 24.0, "day_of_year": float(DAYS)}
_WAVES: Final = 6  # of each cycle: the whole, its half, third, …
_PLACES: Final[dict[CalendarField, tuple[int, int]]] = {  # the least number, and how many there are
    "weekday": (0, 7),
    "day_of_month": (1, 31),
    "month": (1, 12),
}
_FARTHEST: Final = 10.0


class Known(BaseModel):
    """What is known of each step beforehand, and in which scale.

    Attributes:
        calendar: the calendar's fields, which come first.
        centres: of each exogenous column, what is taken for its middle, in raw units.
        sizes: of each exogenous column, what is taken for one, in raw units.
        days: whether something is learnt of each day of the year, which the calendar then holds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    calendar: tuple[CalendarField, ...] = ()
    centres: tuple[float, ...] = ()
    sizes: tuple[float, ...] = ()
    days: bool = False

    @property
    def count(self) -> int:
        """Numbers known of each step."""
        return len(self.calendar) + len(self.centres)

    @property
    def columns(self) -> int:
        """Exogenous columns."""
        return len(self.centres)

    @property
    def calendar_width(self) -> int:
        """Numbers that the calendar is told by."""
        return sum(2 * _WAVES if field in _CYCLES else _PLACES[field][1] for field in self.calendar)

    def split(self, ops: "Operations", known: Any) -> tuple[dict[CalendarField, Any], Any | None]:
        """The calendar's fields, each (time, batch, 1), and the columns in one scale, from (time, batch, count)."""
        sizes = [1] * len(self.calendar) + ([self.columns] if self.columns else [])
        parts = ops.split(known, sizes)
        fields = dict(zip(self.calendar, parts, strict=False))
        if not self.columns:
            return fields, None
        scaled = (parts[-1] - np.array(self.centres, np.float32)) / np.array(self.sizes, np.float32)
        return fields, ops.clip(scaled, -_FARTHEST, _FARTHEST)

    def told(self, ops: "Operations", fields: dict[CalendarField, Any]) -> list[Any]:
        """How the layers are told of the calendar: parts (time, batch, ·), `calendar_width` wide together."""
        return [
            _waves(ops, number, _CYCLES[field]) if field in _CYCLES else _place(ops, number, *_PLACES[field])
            for field, number in fields.items()
        ]


def _waves(ops: "Operations", number: Any, cycle: float) -> Any:
    turns = 2 * np.pi * np.arange(1, _WAVES + 1) / cycle
    frequencies, quarters = np.tile(turns, 2), np.repeat([0.0, np.pi / 2], _WAVES)  # sines, then cosines
    return ops.sin(number * frequencies.astype(np.float32) + quarters.astype(np.float32))


def _place(ops: "Operations", number: Any, least: int, count: int) -> Any:
    return ops.looked_up(np.eye(count, dtype=np.float32), number - float(least))
