"""The registry: which models and versions are served, and from which files.

A folder of models is laid out as `<name>/<version>/model.onnx`; versions are positive integers. The folders' names are
what is served, whatever the metadata of a file says. The models that ship with the package are served as well, unless
the folder holds a usable version of the same name.
"""

import logging
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from service.artifact import FILE_NAME, MODEL_NAME_PATTERN, VERSION_PATTERN
from service.engine import Engine
from service.errors import ArtifactError, NotFound

_log: Final = logging.getLogger("leadtime.registry")

_Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One version of a model, open and checked. Whoever holds it may use it, also after it was replaced or removed."""

    name: str
    version: str
    engine: Engine
    path: Path


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known of one `model.onnx`: the file as it was last tried, what is served for it, and why not it."""

    signature: _Signature | None
    served: ServedModel | None
    fault: str | None


@dataclass(frozen=True, slots=True)
class _Catalogue:
    """Everything that a scan found; replaced as a whole, never changed."""

    entries: Mapping[str, _Entry] = field(default_factory=dict)
    served: Mapping[str, tuple[ServedModel, ...]] = field(default_factory=dict)


class Registry:
    """The models being served. `refresh` may run in another thread than those which read."""

    def __init__(self, folder: Path | None, bundled: Path) -> None:
        """Open what there is now, as `Registry.open` says."""
        self._folder = folder
        self._bundled = _scan(bundled, _Catalogue())
        self._found = _Catalogue()
        self._served: Mapping[str, tuple[ServedModel, ...]] = {}
        self._refreshing = threading.Lock()
        if folder is not None and not folder.is_dir():
            _log.warning("the models folder does not exist yet; it is looked for at each refresh")
        self.refresh()

    @classmethod
    def open(cls, folder: Path | None, bundled: Path) -> "Registry":
        """Open all models of a folder, which may be missing or empty, and the bundled ones.

        A file that cannot be used is logged and listed in `rejected`, and never stops the others.
        """
        return cls(folder, bundled)

    @property
    def rejected(self) -> Mapping[str, str]:
        """Why a file is not served, by its place, `<name>/<version>`; its former content may be served still."""
        entries = {**self._bundled.entries, **self._found.entries}
        return MappingProxyType({place: entry.fault for place, entry in entries.items() if entry.fault is not None})

    def find(self, name: str, version: str | None = None) -> ServedModel:
        """Return a version of a model, the newest if none is named.

        Raises:
            NotFound: naming the models or versions that exist.
        """
        versions = self.versions(name)
        if version is None:
            return versions[0]
        for served in versions:
            if served.version == version:
                return served
        known = ", ".join(served.version for served in reversed(versions))
        raise NotFound(f"the model {name} has no such version; it has: {known}")

    def models(self) -> list[list[ServedModel]]:
        """All models in order of their names, each with its versions, the newest first."""
        served = self._served
        return [list(served[name]) for name in sorted(served)]

    def versions(self, name: str) -> list[ServedModel]:
        """The versions of a model, the newest first; at least one.

        Raises:
            NotFound: naming the models that exist.
        """
        served = self._served
        if name not in served:
            known = ", ".join(sorted(served)) or "none"
            raise NotFound(f"there is no such model; there are: {known}")
        return list(served[name])

    def refresh(self) -> bool:
        """Look at the folder again and open what is new or changed; return whether what is served has changed.

        Files are told apart by their times, sizes and inodes. A version whose file became unusable is served from its
        former content; one whose file is gone is dropped. What is served changes at once as a whole.
        """
        with self._refreshing:
            if self._folder is not None:
                self._found = _scan(self._folder, self._found)
            served = {**self._bundled.served, **self._found.served}
            changed = served != self._served
            self._served = served
            return changed


def _scan(folder: Path, before: _Catalogue) -> _Catalogue:
    """Read a folder of models, keeping what has not changed since `before`."""
    closed: dict[Path, str] = {}
    try:
        files = {_place(path.parent, folder): path for path in _artifacts(folder, closed)}
    except OSError as error:
        _log.warning("the models folder cannot be read (%s); what was served before stays", error.strerror)
        return before
    entries = {place: _entry(place, path, before.entries.get(place)) for place, path in sorted(files.items())}
    for path, reason in closed.items():
        entries |= _kept(_place(path, folder), reason, before)
    for place in sorted(before.entries.keys() - entries.keys()):
        _log.info("%s: its file is gone", place)
    return _Catalogue(entries, _by_name(entry.served for entry in entries.values()))


def _artifacts(folder: Path, closed: dict[Path, str], depth: int = 2) -> Iterator[Path]:
    """Every `model.onnx` at most two folders down, leaving out hidden folders: they are on their way in or out.

    Folders inside that cannot be looked into are put into `closed`, with the reason; `OSError` is about `folder` alone.
    """
    if not folder.is_dir():
        return
    if (folder / FILE_NAME).is_file():
        yield folder / FILE_NAME
    if not depth:
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        try:
            yield from _artifacts(path, closed, depth - 1)
        except FileNotFoundError:  # removed meanwhile
            continue
        except OSError as error:
            closed[path] = error.strerror or type(error).__name__


def _kept(place: str, reason: str, before: _Catalogue) -> dict[str, _Entry]:
    """What was known of a folder that cannot be looked into any more, and why."""
    fault = f"the folder cannot be read: {reason}"
    kept = {known: entry for known, entry in before.entries.items() if known.startswith(f"{place}/")}
    former = before.entries.get(place)
    if former is None or former.fault != fault:
        _log.warning("%s: not served: %s", place, fault)
    return kept | {place: _Entry(None, former.served if former else None, fault)}


def _place(path: Path, folder: Path) -> str:
    return _readable(path.relative_to(folder).as_posix())


def _readable(place: str) -> str:
    """Escape what a folder's name may hold but a log line or an answer may not: line ends, bytes that are no text."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in place)


def _entry(place: str, path: Path, before: _Entry | None) -> _Entry:
    """Open the file at a place, unless it is the one that was tried before."""
    misplaced = _misplaced(place)
    signature = None if misplaced else _signature(path)
    if before is not None and before.signature == signature:
        return before
    former = before.served if before is not None else None
    if misplaced:
        fault = misplaced
    else:
        try:
            name, version = place.split("/")
            served = ServedModel(name, version, Engine.open(path), path)
        except ArtifactError as error:
            fault = f"{error} (the file's former content is still served)" if former else str(error)
        else:
            _log.info("%s: served (%s)", place, served.engine.digest)
            return _Entry(signature, served, None)
    _log.warning("%s: not served: %s", place, fault)
    return _Entry(signature, former, fault)


def _misplaced(place: str) -> str | None:
    """Say what is wrong with the folders that a file lies in, or None where they are `<name>/<version>`."""
    name, _, version = place.partition("/")
    if name == "." or not version:
        return f"{FILE_NAME} lies too high: its place is <name>/<version>/{FILE_NAME}, such as default/1/{FILE_NAME}"
    if not re.fullmatch(MODEL_NAME_PATTERN, name):
        return (
            "the folder's name cannot be a model's: at most 64 letters, digits, dots, hyphens and underscores, "
            "the first a letter or digit"
        )
    if not re.fullmatch(VERSION_PATTERN, version):
        return "the folder's name cannot be a version: a whole number from 1, without leading zeros"
    return None


def _signature(path: Path) -> _Signature:
    """Tell a file's content apart without reading it; a file that has just gone has zeros."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _by_name(models: Iterable[ServedModel | None]) -> dict[str, tuple[ServedModel, ...]]:
    """Sort models by name, and by version, the newest first."""
    names: dict[str, list[ServedModel]] = {}
    for model in models:
        if model is not None:
            names.setdefault(model.name, []).append(model)
    return {
        name: tuple(sorted(versions, key=lambda model: int(model.version), reverse=True))
        for name, versions in names.items()
    }
