"""The registry: which models and versions are served, and from which files.

A folder of models is laid out as `<name>/<version>/model.onnx`; versions are positive integers. The folders' names are
what is served, whatever the metadata of a file says. Of each model the newest versions are open, and those that its
`labels.toml` names. The models that ship with the package are served as well, unless the folder holds a usable version
of the same name.
"""

import logging
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from service.artifact import FILE_NAME, MODEL_NAME_PATTERN, VERSION_PATTERN
from service.drift import WINDOWS, WINDOWS_OUTSIDE, Drift
from service.errors import LabelsError, NotFound
from service.labels import LABELS_NAME, NO_LABELS, Labels, read_labels
from service.metrics import Metrics, TooManyMetrics
from service.routing import Routes, routes_of
from service.signing import SigningKeys
from service.stamp import Stamp, settled, stamp_of
from service.versions import Entry, ServedModel, look_at, one_line

MODEL_LOADS: Final = "leadtime_model_loads"
VERSIONS_SERVED: Final = "leadtime_model_versions_served"
FILES_REFUSED: Final = "leadtime_model_files_refused"

NEWEST_KEPT: Final = 3
"""How many of a model's versions are open, unless told otherwise."""

# Numbers of so many versions that are gone are still told, for whoever reads them only now and then.
_GONE_COUNTED: Final = 32

_log: Final = logging.getLogger("leadtime.registry")


@dataclass(frozen=True, slots=True)
class _Labelled:
    """What is known of one file of labels: how it was when it was read, what it said last, what is wrong with it."""

    stamp: Stamp
    labels: Labels
    unreadable: str | None
    fault: str | None


@dataclass(frozen=True, slots=True)
class _Catalogue:
    """Everything that a scan found; replaced as a whole, never changed."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    labels: Mapping[str, _Labelled] = field(default_factory=dict)
    routes: Mapping[str, Routes] = field(default_factory=dict)

    def faults(self) -> dict[str, str]:
        """Why files are not served, by their places."""
        of_files = {place: entry.fault for place, entry in self.entries.items() if entry.fault is not None}
        of_labels = {
            f"{name}/{LABELS_NAME}": labels.fault for name, labels in self.labels.items() if labels.fault is not None
        }
        return of_files | of_labels


class Registry:
    """The models being served. `refresh` may run in another thread than those which read."""

    def __init__(
        self,
        folder: Path | None,
        bundled: Path,
        *,
        newest: int = NEWEST_KEPT,
        metrics: Metrics | None = None,
        signing_keys: SigningKeys | None = None,
    ) -> None:
        """Open what there is now, as `Registry.open` says."""
        self._folder = folder
        self._newest = newest
        self._signing_keys = signing_keys
        self._bundled = _Scan(bundled, _Catalogue(), newest).catalogue()
        self._found = _Catalogue()
        self._routes: Mapping[str, Routes] = {}
        self._refreshing = threading.Lock()
        self._tally = _Tally(metrics or Metrics(None))
        if folder is not None and not folder.is_dir():
            _log.warning("the models folder does not exist yet; it is looked for at each refresh")
        self.refresh()

    @classmethod
    def open(
        cls,
        folder: Path | None,
        bundled: Path,
        *,
        newest: int = NEWEST_KEPT,
        metrics: Metrics | None = None,
        signing_keys: SigningKeys | None = None,
    ) -> "Registry":
        """Open the models of a folder, which may be missing or empty, and the bundled ones.

        Of each model the `newest` usable versions are opened, and those that have a label. A file that cannot be used
        is logged and listed in `rejected`, and never stops the others. With `signing_keys`, files of the folder must be
        signed with one of them; the bundled ones come with the code, and are as good as that.
        """
        return cls(folder, bundled, newest=newest, metrics=metrics, signing_keys=signing_keys)

    @property
    def rejected(self) -> Mapping[str, str]:
        """Why a file is not served, or labels not heeded, by its place; what was served before may be served still."""
        return MappingProxyType(self._bundled.faults() | self._found.faults())

    def find(self, name: str, version: str | None = None) -> ServedModel:
        """Return a version of a model by its number or label, and the stable one if none is named.

        Raises:
            NotFound: naming the models or versions that exist.
        """
        try:
            return self._routes[name].named[version]
        except KeyError:
            raise self._not_found(name) from None

    def routes(self, name: str) -> Routes:
        """The versions of a model, and which of them answers what.

        Raises:
            NotFound: naming the models that exist.
        """
        try:
            return self._routes[name]
        except KeyError:
            raise self._not_found(name) from None

    def models(self) -> list[Routes]:
        """The routes of all models, in order of their names."""
        return [routes for _, routes in sorted(self._routes.items())]

    def refresh(self) -> bool:
        """Look at the folder again and open what is new or changed; return whether what is served has changed.

        Keys that have changed are read first, and what had been signed is then checked anew.
        Takes as long as opening takes, and belongs on a thread where somebody waits for the loop. Files are told apart
        by their times, sizes and inodes. A version whose file became unusable is served from its former content; one
        whose file is gone, or that has grown too old, is dropped. What is served changes at once as a whole; whoever
        holds a version that was dropped holds it alone, and with the last of them its memory is freed.
        """
        with self._refreshing:
            if self._signing_keys is not None:
                self._signing_keys.refresh()
            if self._folder is not None:
                scan = _Scan(self._folder, self._found, self._newest, self._signing_keys)
                before, self._found = self._found, scan.catalogue()
                self._tally.compare(before, self._found)
            routes = {**self._bundled.routes, **self._found.routes}
            changed = routes != self._routes
            if changed:
                self._routes = routes
            self._tally.take(routes, len(self.rejected))
            return changed

    def _not_found(self, name: str) -> NotFound:
        routes = self._routes
        if name not in routes:
            return NotFound(f"there is no such model; there are: {', '.join(sorted(routes)) or 'none'}")
        found = routes[name]
        labels = [label for label in found.labels if label != "stable"]
        known = ", ".join([*(model.version for model in reversed(found.versions)), *labels])
        return NotFound(f"the model {name} has no such version; it has: {known}")


class _Scan:
    """One look through a folder of models, keeping what has not changed since the last one."""

    def __init__(self, folder: Path, before: _Catalogue, newest: int, signing_keys: SigningKeys | None = None) -> None:
        self._folder = folder
        self._before = before
        self._newest = newest
        self._signing_keys = signing_keys
        self._entries: dict[str, Entry] = {}
        self._labels: dict[str, _Labelled] = {}

    def catalogue(self) -> _Catalogue:
        """What is found, and what becomes of it."""
        closed: dict[Path, str] = {}
        try:
            files = sorted(_artifacts(self._folder, closed))
        except OSError as error:
            _log.warning("the models folder cannot be read (%s); what was served before stays", error.strerror)
            return self._before
        names: dict[str, dict[str, Path]] = {}
        for path in files:
            place = _place(path.parent, self._folder)
            if fault := _misplaced(place):
                self._refuse(place, fault)
            else:
                name, version = place.split("/")
                names.setdefault(name, {})[version] = path
        for name, versions in names.items():
            self._open(name, versions)
        for path, reason in closed.items():
            self._keep(_place(path, self._folder), reason)
        for place in sorted(self._before.entries.keys() - self._entries.keys()):
            name, _, version = place.partition("/")
            too_old = version in names.get(name, {})
            _log.info("%s: %s", place, "let go, for newer versions are there" if too_old else "its file is gone")
        return _Catalogue(self._entries, self._labels, self._routes())

    def _open(self, name: str, versions: Mapping[str, Path]) -> None:
        """Open the newest versions of a model, and those that have a label."""
        labels = self._read_labels(name, next(iter(versions.values())).parent.parent / LABELS_NAME)
        usable = 0
        for version in sorted(versions, key=int, reverse=True):
            if usable < self._newest or version in labels.versions:
                place = f"{name}/{version}"
                before = self._before.entries.get(place)
                entry = self._entries[place] = look_at(name, version, versions[version], before, self._signing_keys)
                usable += entry.served is not None
                _log_entry(place, entry, before)

    def _read_labels(self, name: str, path: Path) -> Labels:
        """What a model's labels say, or, where they cannot be read, what they said last."""
        stamp, before = stamp_of(path), self._before.labels.get(name)
        if not any(stamp):
            return NO_LABELS
        if before is None or before.stamp != stamp:
            labels, unreadable = NO_LABELS, None
            if before is not None:
                labels, stamp = before.labels, settled(lambda: stamp_of(path))
            try:
                labels = read_labels(path)
            except LabelsError as error:
                unreadable = one_line(str(error)) + (" (what it said before still holds)" if before else "")
            before = _Labelled(stamp, labels, unreadable, None)
        self._labels[name] = before
        return before.labels

    def _routes(self) -> dict[str, Routes]:
        """Who answers what, of each model that has a usable version."""
        served: dict[str, list[ServedModel]] = {}
        for entry in self._entries.values():
            if entry.served is not None:
                served.setdefault(entry.served.name, []).append(entry.served)
        routes: dict[str, Routes] = {}
        for name, versions in served.items():
            versions.sort(key=lambda model: int(model.version), reverse=True)
            labelled, before = self._labels.get(name), self._before.routes.get(name)
            labels = NO_LABELS if labelled is None else labelled.labels
            routes[name], faults = routes_of(versions, labels, before)
            if labelled is not None:
                fault = "; ".join([labelled.unreadable] if labelled.unreadable else faults) or None
                self._labels[name] = _Labelled(labelled.stamp, labels, labelled.unreadable, fault)
                self._log_labels(name, fault, routes[name], before)
        return routes

    def _log_labels(self, name: str, fault: str | None, routes: Routes, before: Routes | None) -> None:
        former = self._before.labels.get(name)
        if fault is not None and (former is None or former.fault != fault):
            _log.warning("%s/%s: not heeded: %s", name, LABELS_NAME, fault)
        if before is None or _labels_in_words(before) != _labels_in_words(routes):
            _log.info("%s: %s", name, _labels_in_words(routes))

    def _refuse(self, place: str, fault: str) -> None:
        former = self._before.entries.get(place)
        self._entries[place] = entry = Entry(None, None, fault)
        _log_entry(place, entry, former)

    def _keep(self, place: str, reason: str) -> None:
        """Keep what was known of a folder that cannot be looked into any more, and say why."""
        former = self._before.entries.get(place)
        for known, entry in self._before.entries.items():
            if known.startswith(f"{place}/"):
                self._entries[known] = entry
        if place in self._before.labels:
            self._labels[place] = self._before.labels[place]
        entry = Entry(None, former.served if former else None, f"the folder cannot be read: {reason}")
        self._entries[place] = entry
        _log_entry(place, entry, former)


class _Tally:
    """What is counted of models: how loading went, and what is served."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._served: set[tuple[str, str, str]] = set()
        self._gone: dict[tuple[str, str], None] = {}
        """The versions that are not served any more, in the order in which they went."""

    def compare(self, before: _Catalogue, now: _Catalogue) -> None:
        """Count what was loaded and what was refused."""
        for place, entry in now.entries.items():
            former = before.entries.get(place)
            name = place.partition("/")[0] if _misplaced(place) is None else ""
            if entry.served is not None and (former is None or former.served is not entry.served):
                self._count(name, "loaded")
            if entry.fault is not None and (former is None or former.fault != entry.fault):
                self._count(name, "refused")

    def take(self, routes: Mapping[str, Routes], refused: int) -> None:
        """Tell what this worker serves: added over all workers, how many serve each version."""
        served = {
            (name, model.version, label)
            for name, found in routes.items()
            for model in found.versions
            for label in [label for label, version in found.labels.items() if version == model.version] or [""]
        }
        for key in self._served ^ served:
            self._tell(key, float(key in served))
        self._forget_long_gone(_versions(self._served), _versions(served))
        self._served = served
        for found in routes.values():
            for model in found.versions:
                self._watch_drift(model)
        self._metrics.gauge(FILES_REFUSED).set(refused)

    def _forget_long_gone(self, before: set[tuple[str, str]], now: set[tuple[str, str]]) -> None:
        for back in now:
            self._gone.pop(back, None)
        self._gone.update(dict.fromkeys(sorted(before - now)))
        while len(self._gone) > _GONE_COUNTED:
            name, version = longest = next(iter(self._gone))
            del self._gone[longest]
            self._metrics.forget(model=name, version=version)
            self._metrics.forget(model=name, shadow=version)
            if all(name != other for other, _ in (*self._gone, *now)):
                self._metrics.forget(model=name)

    def _watch_drift(self, model: ServedModel) -> None:
        ranges = model.engine.metadata.ranges
        if ranges is None or model.engine.drift is not None:
            return
        labels = {"model": model.name, "version": model.version}
        try:
            cells = [self._metrics.counter(name, **labels) for name in (WINDOWS, WINDOWS_OUTSIDE)]
            model.engine.drift = Drift(ranges, *cells)
        except TooManyMetrics:
            _log.debug("no room to count another version")

    def _count(self, model: str, result: str) -> None:
        try:
            self._metrics.counter(MODEL_LOADS, model=model, result=result).add()
        except TooManyMetrics:
            _log.debug("no room to count another model")

    def _tell(self, key: tuple[str, str, str], value: float) -> None:
        model, version, label = key
        try:
            self._metrics.gauge(VERSIONS_SERVED, model=model, version=version, label=label).set(value)
        except TooManyMetrics:
            _log.debug("no room to count another version")


def _versions(labelled: set[tuple[str, str, str]]) -> set[tuple[str, str]]:
    return {(name, version) for name, version, _ in labelled}


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


def _place(path: Path, folder: Path) -> str:
    return one_line(path.relative_to(folder).as_posix())


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


def _log_entry(place: str, entry: Entry, before: Entry | None) -> None:
    """Tell of a file once, and again when something else is to be told of it."""
    former = before.served if before is not None else None
    if entry.served is not None and entry.served is not former:
        _log.info("%s: served (%s)", place, entry.served.engine.digest)
    if entry.fault is not None and (before is None or before.fault != entry.fault):
        _log.warning("%s: not served: %s", place, entry.fault)


def _labels_in_words(routes: Routes) -> str:
    words = [f"stable {routes.stable.version}"]
    for label, beside in (("canary", routes.stable.canary), ("shadow", routes.stable.shadow)):
        if beside is not None:
            words.append(f"{label} {beside.model.version} of {beside.share:.4g} of the requests")
    return ", ".join(words)
