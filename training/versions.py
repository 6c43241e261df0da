"""The folder of models that the service watches: `<name>/<version>/`, each version appearing whole or not at all."""

import hashlib
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.artifact import DIGEST_NAME, FILE_NAME, VERSION_PATTERN
from training.errors import DataError, OutputError


def artifact_of(path: Path) -> Path:
    """The file of a model: itself, in a folder, or in the latest version of a folder of them.

    Raises:
        DataError: the folder holds none.
    """
    if not path.is_dir():
        return path
    if (path / FILE_NAME).is_file():
        return path / FILE_NAME
    found = [held for held in path.glob(f"*/{FILE_NAME}") if re.fullmatch(VERSION_PATTERN, held.parent.name)]
    if not found:
        raise DataError(f"{path}: there is no {FILE_NAME} in this folder, nor a version that holds one")
    return max(found, key=lambda held: int(held.parent.name))


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Name the folder in a message where something cannot be written to it, a full disk included.

    Raises:
        OutputError: something cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error


@contextmanager
def staging(output: Path) -> Iterator[Path]:
    """A hidden folder inside the output folder, on the same file system, that is gone at the end.

    Raises:
        OutputError: it cannot be made.
    """
    folder = output / f".unfinished-{secrets.token_hex(8)}"
    with writing(output):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(staged: Path, models: Path, finish: Callable[[str], None]) -> Path:
    """Move a staged folder to the next free version of a model, and return its place.

    Beside the artifact lies its digest, as `sha256sum` writes it: whoever copies both can tell whether they came whole,
    and the service does.

    Another run may take that version at the same time: then the next one is tried, and nothing is overwritten.

    Args:
        staged: the folder that holds the files.
        models: the model's folder, `<output>/<name>`.
        finish: writes the version into the files; it is called again where a version turns out to be taken.

    Raises:
        OutputError: the folder cannot be written to.
    """
    with writing(models):
        models.mkdir(parents=True, exist_ok=True)
        while True:
            version = next_version(models)
            finish(version)
            _write_digest(staged)
            try:
                # A rename is atomic; onto a folder that holds files it fails.
                return staged.rename(models / version)
            except OSError:
                if not (models / version).exists():
                    raise


def _write_digest(folder: Path) -> None:
    digest = hashlib.sha256((folder / FILE_NAME).read_bytes()).hexdigest()
    (folder / DIGEST_NAME).write_text(f"{digest}  {FILE_NAME}\n", encoding="ascii")


def next_version(models: Path) -> str:
    """One more than the highest version in a model's folder; 1 where there is none."""
    found = [int(entry.name) for entry in models.iterdir() if re.fullmatch(VERSION_PATTERN, entry.name)]
    return str(max(found, default=0) + 1)


def check_output(output: Path, name: str) -> None:
    """Make sure that versions of a model can be written, leaving nothing behind.

    Raises:
        OutputError: they cannot.
    """
    for folder in (output, output / name):
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder}: this is a file; give a folder that models are written to")
    existed = [folder for folder in (output, *output.parents) if folder.exists()]
    try:
        with staging(output):
            pass
    finally:
        if output not in existed:
            remove_empty(output, until=existed[0])


def remove_empty(folder: Path, *, until: Path) -> None:
    """Remove a folder and those that it lies in up to another one, as far as they hold nothing."""
    while folder != until:
        with suppress(OSError):
            folder.rmdir()
        if folder.exists():
            return
        folder = folder.parent
