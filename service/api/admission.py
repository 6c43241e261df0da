"""Refusing what would be late before anything is done for it: a refusal must cost far less than an answer."""

import re
from collections.abc import Iterable
from functools import lru_cache
from math import ceil
from typing import Final

from service.api.headers import Wishes, read_headers
from service.api.problems import answer_to
from service.api.shortcut import Answered
from service.api.state import Service
from service.errors import LeadtimeError, NotFound, Overloaded
from service.scheduler import LATE
from service.settings import Settings

_HORIZON: Final = re.compile(rb'"horizon"\s*:\s*(\d{1,9})')
_MODEL: Final = re.compile(rb'"model"\s*:\s*"([A-Za-z0-9._-]{1,64})"')


def refusal(service: Service, seconds: float, body: bytes | bytearray, client: int) -> Answered | None:
    """The answer to a client's request that has so many seconds and would be late; None where it may not be."""
    late = _lateness(service, seconds, body, client)
    if late <= 0:
        return None
    service.scheduler.count_late()
    return _refusal(ceil(late))


def check_is_in_time(service: Service, seconds: float, body: bytes, client: int) -> None:
    """Refuse a client's request that has so many seconds and would be late.

    Raises:
        Overloaded: it would be late.
    """
    late = _lateness(service, seconds, body, client)
    if late > 0:
        service.scheduler.count_late()
        raise Overloaded(LATE, late)


def wishes_of(headers: Iterable[tuple[bytes, bytes]], settings: Settings) -> Wishes | None:
    """What a request's headers say; None where it is refused for that."""
    try:
        return read_headers(headers, settings)
    except LeadtimeError:
        return None


def _lateness(service: Service, seconds: float, body: bytes | bytearray, client: int) -> float:
    """By how many seconds a client's request would be late at the least, as far as a body tells that is not read.

    Which model it asks, and how far ahead, is told by a few bytes. Where they leave any doubt, and where the model has
    a canary, the request must be read to know: 0 is returned.
    """
    name = service.settings.default_model
    if b"model" in body:
        named = _MODEL.search(body)
        if named is None or body.count(b"model") > 1:
            return 0.0
        name = named[1].decode()
    horizon = 1
    if b"horizon" in body:
        ahead = _HORIZON.search(body)
        if ahead is None or body.count(b"horizon") > 1:
            return 0.0
        horizon = max(1, min(int(ahead[1]), service.settings.max_horizon))
    if b"version" in body or b"\\" in body:  # what is escaped may be any name
        return 0.0
    try:
        model = service.registry.find(name)
    except NotFound:
        return 0.0
    if model.canary is not None:
        return 0.0
    return service.scheduler.least_seconds(model.engine, horizon, client) - seconds


@lru_cache(128)
def _refusal(seconds: int) -> Answered:
    response = answer_to(Overloaded(LATE, seconds))
    return Answered(response.status_code, response.raw_headers, bytes(response.body))
