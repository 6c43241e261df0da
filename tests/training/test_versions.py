"""The folder of models: versions count up, appear whole, and are never overwritten."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from training.errors import OutputError
from training.versions import check_output, next_version, publish, staging


def put(output: Path, text: str, barrier: Barrier | None = None) -> Path:
    """Publish a version whose file holds the text and the version."""
    with staging(output) as staged:

        def finish(version: str) -> None:
            (staged / "model.onnx").write_text(f"{text} {version}")
            if barrier is not None and version == "1":
                barrier.wait(timeout=30)

        return publish(staged, output / "sales", finish)


def test_versions_count_up_and_leave_nothing_else_behind(tmp_path: Path) -> None:
    assert [put(tmp_path / "models", "a").name for _ in range(3)] == ["1", "2", "3"]
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == ["sales"]
    assert (tmp_path / "models" / "sales" / "2" / "model.onnx").read_text() == "a 2"


def test_a_digest_lies_beside_the_artifact_as_sha256sum_writes_it(tmp_path: Path) -> None:
    folder = put(tmp_path, "a")
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert (folder / "model.onnx.sha256").read_bytes() == f"{digest}  model.onnx\n".encode()


def test_the_next_version_follows_the_highest_and_not_the_last_in_the_alphabet(tmp_path: Path) -> None:
    for name in ("9", "10", "latest", "007", ".11"):
        (tmp_path / name).mkdir()
    assert next_version(tmp_path) == "11"


def test_runs_that_finish_together_take_different_versions(tmp_path: Path) -> None:
    """All have found version 1 to be the next before any of them moves its folder there."""
    barrier = Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda text: put(tmp_path, text, barrier), "abcd"))
    assert sorted(folder.name for folder in folders) == ["1", "2", "3", "4"]
    for text, folder in zip("abcd", folders, strict=True):
        assert (folder / "model.onnx").read_text() == f"{text} {folder.name}"


def test_a_run_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with staging(tmp_path / "models") as staged:
            (staged / "model.onnx").write_text("half")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail()
    assert list((tmp_path / "models").iterdir()) == []


def test_checking_an_output_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "models", "sales")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "sales").write_text("mine")
    with pytest.raises(OutputError, match="sales: this is a file"):
        check_output(tmp_path / "models", "sales")
    with pytest.raises(OutputError, match="sales/deeper: cannot be written"):
        check_output(tmp_path / "models" / "sales" / "deeper", "sales")
