"""Answers that were given, kept for requests that say the same again.

What is the same is told by the bytes of the body and by what else shapes an answer. An answer is good for as long as
the model that was asked for leads to the same version with the same digest, so that a reload throws nothing away.
"""

from collections import OrderedDict
from hashlib import blake2b
from typing import Final, NamedTuple

from service.metrics import Metrics
from service.registry import Registry
from service.versions import ServedModel

CACHE_LOOKUPS: Final = "leadtime_cache_lookups"
CACHE_BYTES: Final = "leadtime_cache_bytes"

_KEY_BYTES: Final = 32
# What an answer takes besides its own bytes: the objects that hold it.
_BESIDE: Final = 512


class _Kept(NamedTuple):
    asked: tuple[str, str | None]
    """The name and the version that the request names."""
    version: str
    digest: str
    answer: tuple[bytes, bytes]


class Cache:
    """The answers of one process; those that have not been asked for the longest are let go first."""

    def __init__(self, most_bytes: int, metrics: Metrics) -> None:
        """Keep answers of so many bytes together."""
        self._most = most_bytes
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._bytes = 0
        self._hits = metrics.counter(CACHE_LOOKUPS, result="hit")
        self._misses = metrics.counter(CACHE_LOOKUPS, result="miss")
        self._size = metrics.gauge(CACHE_BYTES)

    @staticmethod
    def key(body: bytes, *kinds: bool) -> bytes:
        """What tells requests apart: their bodies, and the kinds of question, body and answer."""
        return blake2b(body, digest_size=_KEY_BYTES, salt=bytes(kinds)).digest()

    def find(self, key: bytes, registry: Registry) -> tuple[ServedModel, tuple[bytes, bytes]] | None:
        """The model that would answer, and the answer that it gave, if that is here.

        Raises:
            NotFound: the model or the version is not served any more.
        """
        kept = self._kept.get(key)
        if kept is not None:
            model = registry.find(*kept.asked)
            if may_keep(model) and model.version == kept.version and model.engine.digest == kept.digest:
                self._kept.move_to_end(key)
                self._hits.add()
                return model, kept.answer
        self._misses.add()
        return None

    def keep(self, key: bytes, name: str, version: str | None, model: ServedModel, answer: tuple[bytes, bytes]) -> None:
        """Keep the answer of a model, which was asked for by this name and version."""
        size = _size(answer)
        if size > self._most:
            return
        former = self._kept.pop(key, None)
        if former is not None:
            self._bytes -= _size(former.answer)
        self._kept[key] = _Kept((name, version), model.version, model.engine.digest, answer)
        self._bytes += size
        while self._bytes > self._most:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= _size(oldest.answer)
        self._size.set(self._bytes)


def may_keep(model: ServedModel) -> bool:
    """Whether its answer may be given again: not where chance decides who answers, or a shadow listens."""
    return model.canary is None and model.shadow is None


def _size(answer: tuple[bytes, bytes]) -> int:
    return len(answer[0]) + _KEY_BYTES + _BESIDE
