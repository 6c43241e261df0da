"""The registry: what lies in the folder is what is served, and a bad file never stops a good one."""

import hashlib
import json
import logging
import os
import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine import Engine
from service.errors import NotFound
from service.metrics import Metrics, collect
from service.registry import Registry
from tests.artifacts import Kind, write_artifact, write_broken_artifact


@pytest.fixture
def bundled(tmp_path: Path) -> Path:
    folder = tmp_path / "bundled"
    put(folder, "default/1")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


def put(folder: Path, place: str, kind: Kind = "drift", *, seed: int = 0) -> Path:
    """Write an artifact the way that deployments do: beside its place first, then moved there as a whole."""
    coming = write_artifact(folder / ".coming" / "model.onnx", kind, seed=seed)
    path = folder / place / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    return coming.replace(path)


def put_broken(folder: Path, place: str, fault: str = "no metadata") -> Path:
    coming = write_broken_artifact(folder / ".coming" / "model.onnx", fault)
    path = folder / place / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    return coming.replace(path)


def served(registry: Registry) -> dict[str, list[str]]:
    return {routes.stable.name: [model.version for model in routes.versions] for routes in registry.models()}


def not_found(registry: Registry, name: str, version: str | None = None) -> str:
    with pytest.raises(NotFound) as caught:
        registry.find(name, version)
    return str(caught.value)


@pytest.mark.parametrize("folder_made", [False, True], ids=["missing", "empty"])
def test_without_models_of_ones_own_the_bundled_are_served(bundled: Path, folder: Path, folder_made: bool) -> None:
    if folder_made:
        folder.mkdir()
    assert served(Registry.open(folder, bundled)) == {"default": ["1"]}
    assert served(Registry.open(None, bundled)) == {"default": ["1"]}


def test_models_of_the_folder_are_served_beside_the_bundled_ones(bundled: Path, folder: Path) -> None:
    path = put(folder, "lab/3")
    registry = Registry.open(folder, bundled)
    assert served(registry) == {"default": ["1"], "lab": ["3"]}
    found = registry.find("lab")
    assert (found.name, found.version, found.path) == ("lab", "3", path)
    assert found.engine.forecast(np.array([[[1], [2]]], np.float32), 1).item() == 3


def test_a_name_of_the_folder_replaces_the_bundled_one_with_all_its_versions(bundled: Path, folder: Path) -> None:
    put(folder, "default/7")
    assert served(Registry.open(folder, bundled)) == {"default": ["7"]}


def test_a_bundled_name_is_served_while_the_folder_has_no_usable_version_of_it(bundled: Path, folder: Path) -> None:
    put_broken(folder, "default/2")
    registry = Registry.open(folder, bundled)
    assert registry.find("default").path == bundled / "default" / "1" / "model.onnx"
    assert list(registry.rejected) == ["default/2"]


@given(st.sets(st.integers(1, 10**9 - 1), min_size=1, max_size=5))
@settings(max_examples=15)
def test_versions_are_sorted_as_numbers_and_the_newest_is_found(
    tmp_path_factory: pytest.TempPathFactory, versions: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("models")
    for version in versions:
        put(folder, f"lab/{version}")
    registry = Registry.open(folder, folder / "none", newest=5)
    assert served(registry)["lab"] == [str(version) for version in sorted(versions, reverse=True)]
    assert registry.find("lab").version == str(max(versions))
    assert all(registry.find("lab", str(version)).version == str(version) for version in versions)


def test_an_unknown_name_is_told_the_names_that_exist(bundled: Path, folder: Path) -> None:
    put(folder, "lab/1")
    message = not_found(Registry.open(folder, bundled), "secret")
    assert message == "there is no such model; there are: default, lab"


@pytest.mark.parametrize("version", ["3", "01", "1 ", "latest", ""])
def test_an_unknown_version_is_told_the_versions_that_exist(bundled: Path, folder: Path, version: str) -> None:
    for known in ("1", "2", "10"):
        put(folder, f"lab/{known}")
    message = not_found(Registry.open(folder, bundled), "lab", version)
    assert message == "the model lab has no such version; it has: 1, 2, 10"


def test_where_nothing_is_served_an_unknown_name_is_told_so(folder: Path) -> None:
    registry = Registry.open(None, folder)
    assert not_found(registry, "default") == "there is no such model; there are: none"
    assert registry.models() == []


def test_a_bad_file_is_rejected_with_its_reason_and_logged_and_the_others_are_served(
    bundled: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(folder, "lab/1")
    put_broken(folder, "lab/2", "contract 2")
    registry = Registry.open(folder, bundled)
    assert served(registry)["lab"] == ["1"]
    assert registry.rejected == {"lab/2": "this service reads contract version 1 only"}
    (warning,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert warning.name == "leadtime.registry"
    assert warning.getMessage() == "lab/2: not served: this service reads contract version 1 only"


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        pytest.param(".", "model.onnx lies too high", id="in the folder itself"),
        pytest.param("lab", "model.onnx lies too high", id="without a version"),
        pytest.param("my model/1", "the folder's name cannot be a model's", id="space in the name"),
        pytest.param("lab/v1", "the folder's name cannot be a version", id="letter in the version"),
        pytest.param("lab/01", "the folder's name cannot be a version", id="leading zero"),
        pytest.param("lab/0", "the folder's name cannot be a version", id="version zero"),
    ],
)
def test_a_file_in_the_wrong_place_is_rejected_with_the_right_one(folder: Path, place: str, reason: str) -> None:
    put(folder, place)
    registry = Registry.open(folder, folder / "none")
    assert registry.models() == []
    assert registry.rejected[place].startswith(reason)


@pytest.mark.parametrize("place", [".hidden/1", "lab/.1.tmp", "lab/1/deeper"])
def test_hidden_and_deeper_folders_are_none_of_its_business(folder: Path, place: str) -> None:
    put(folder, place)
    registry = Registry.open(folder, folder / "none")
    assert (registry.models(), dict(registry.rejected)) == ([], {})


@pytest.mark.parametrize(
    ("name", "told"),
    [("\udcff", r"\udcff"), ("1\n2", r"1\n2"), ("\u202e1", r"\u202e1"), ("é", "é")],
    ids=["bytes that are no text", "a line end", "a mark of direction", "a letter"],
)
def test_the_name_of_an_odd_folder_is_told_as_text_of_one_line(
    bundled: Path, folder: Path, caplog: pytest.LogCaptureFixture, name: str, told: str
) -> None:
    try:
        put(folder, f"mine/{name}")
    except OSError:
        pytest.skip("the file system takes no such name")
    with caplog.at_level(logging.WARNING):
        registry = Registry.open(folder, bundled)
    (place,) = registry.rejected
    assert place == f"mine/{told}"
    assert place.encode().decode() == place
    assert caplog.messages[0].startswith(f"mine/{told}: not served")


def test_folders_and_files_without_a_model_are_passed_over(bundled: Path, folder: Path) -> None:
    (folder / "lab" / "1").mkdir(parents=True)
    (folder / "notes.txt").write_text("nothing")
    (folder / "lab" / "report.html").write_text("nothing")
    registry = Registry.open(folder, bundled)
    assert (served(registry), dict(registry.rejected)) == ({"default": ["1"]}, {})


def test_nothing_changes_and_nothing_is_read_again_while_the_files_stay(bundled: Path, folder: Path) -> None:
    put(folder, "lab/1")
    put_broken(folder, "lab/2")
    registry = Registry.open(folder, bundled)
    before = registry.find("lab")
    assert registry.refresh() is False
    assert registry.find("lab") is before


def test_a_bad_file_is_complained_of_once(bundled: Path, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    put_broken(folder, "lab/1")
    put(folder, "lab/v2")
    registry = Registry.open(folder, bundled)
    caplog.clear()
    assert registry.refresh() is False
    assert caplog.records == []
    assert sorted(registry.rejected) == ["lab/1", "lab/v2"]


def test_a_new_version_is_taken_up_and_an_old_one_stays_in_the_hands_that_hold_it(bundled: Path, folder: Path) -> None:
    put(folder, "lab/1")
    registry = Registry.open(folder, bundled)
    held = registry.find("lab")
    put(folder, "lab/2", "mean")
    assert registry.find("lab") is held
    assert registry.refresh() is True
    assert registry.find("lab").version == "2"
    shutil.rmtree(folder / "lab" / "1")
    assert registry.refresh() is True
    assert served(registry)["lab"] == ["2"]
    assert held.engine.forecast(np.array([[[1], [2]]], np.float32), 1).item() == 3


def test_a_model_whose_folder_is_gone_is_dropped_and_the_bundled_one_comes_back(bundled: Path, folder: Path) -> None:
    put(folder, "default/2")
    registry = Registry.open(folder, bundled)
    shutil.rmtree(folder)
    assert registry.refresh() is True
    assert served(registry) == {"default": ["1"]}


def test_a_replaced_file_is_opened_anew(bundled: Path, folder: Path) -> None:
    put(folder, "lab/1", "lstm", seed=1)
    registry = Registry.open(folder, bundled)
    before = registry.find("lab").engine.digest
    path = put(folder, "lab/1", "lstm", seed=2)
    os.utime(path, ns=(0, 0))
    assert registry.refresh() is True
    assert registry.find("lab").engine.digest != before


def test_a_version_whose_file_breaks_is_served_from_its_former_content_and_the_reason_is_told(
    bundled: Path, folder: Path
) -> None:
    put(folder, "lab/1")
    registry = Registry.open(folder, bundled)
    before = registry.find("lab")
    put_broken(folder, "lab/1", "contract 2")
    assert registry.refresh() is False
    assert registry.find("lab") is before
    assert registry.rejected["lab/1"].endswith("(the file's former content is still served)")
    assert registry.refresh() is False
    assert registry.find("lab") is before
    put(folder, "lab/1", "mean")
    assert registry.refresh() is True
    assert registry.find("lab") is not before
    assert dict(registry.rejected) == {}


def test_a_rejected_file_that_is_mended_is_served(bundled: Path, folder: Path) -> None:
    put_broken(folder, "lab/1")
    registry = Registry.open(folder, bundled)
    put(folder, "lab/1")
    assert registry.refresh() is True
    assert served(registry)["lab"] == ["1"]
    assert dict(registry.rejected) == {}


def test_a_folder_that_cannot_be_read_leaves_what_was_served(
    bundled: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(folder, "lab/1")
    registry = Registry.open(folder, bundled)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as context:
        context.setattr(Path, "iterdir", refuse)
        assert registry.refresh() is False
    assert served(registry)["lab"] == ["1"]
    assert "the models folder cannot be read (Permission denied)" in caplog.text


@pytest.mark.parametrize("closed", ["lost+found", "lab/2"])
def test_a_folder_inside_that_cannot_be_read_is_rejected_and_the_others_are_served(
    bundled: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, closed: str
) -> None:
    put(folder, "lab/1")
    (folder / closed).mkdir(parents=True)
    close(monkeypatch, folder / closed)
    registry = Registry.open(folder, bundled)
    assert served(registry) == {"default": ["1"], "lab": ["1"]}
    assert dict(registry.rejected) == {closed: "the folder cannot be read: Permission denied"}
    assert registry.refresh() is False
    assert caplog.text.count("Permission denied") == 1


@pytest.mark.parametrize("closed", ["lab", "lab/2"])
def test_what_was_served_stays_while_its_folder_cannot_be_read(
    bundled: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    put(folder, "lab/1")
    put(folder, "lab/2")
    registry = Registry.open(folder, bundled)
    with monkeypatch.context() as context:
        close(context, folder / closed)
        assert registry.refresh() is False
        assert served(registry)["lab"] == ["2", "1"]
        assert dict(registry.rejected) == {closed: "the folder cannot be read: Permission denied"}
    registry.refresh()
    assert served(registry)["lab"] == ["2", "1"]
    assert dict(registry.rejected) == {}


def close(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let a folder not be looked into; its mode would not keep out a superuser, as whom tests may run."""
    is_file = Path.is_file

    def refuse(path: Path) -> bool:
        if path.parent == folder:
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refuse)


def test_readers_never_find_a_model_missing_while_its_file_is_replaced_in_another_thread(
    bundled: Path, folder: Path
) -> None:
    put(folder, "lab/1", "lstm", seed=0)
    registry = Registry.open(folder, bundled)

    def replace() -> int:
        changes = 0
        for seed in range(1, 15):
            put(folder, "lab/1", "lstm", seed=seed)
            changes += registry.refresh()
        return changes

    digests = set()
    with ThreadPoolExecutor(max_workers=1) as pool:
        changes = pool.submit(replace)
        while not changes.done():
            digests.add(registry.find("lab", "1").engine.digest)
    assert changes.result() == 14
    assert len(digests) <= 15


def test_refreshes_in_several_threads_open_each_change_once(bundled: Path, folder: Path) -> None:
    put(folder, "lab/1")
    registry = Registry.open(folder, bundled)
    put(folder, "lab/2")
    with ThreadPoolExecutor(max_workers=4) as pool:
        changes = list(pool.map(lambda _: registry.refresh(), range(8)))
    assert changes.count(True) == 1


def digest_beside(path: Path, line: str = "{digest}  model.onnx\n") -> Path:
    """Write what `sha256sum` writes of a file beside it."""
    beside = path.with_name("model.onnx.sha256")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return write_atomically(beside, line.format(digest=digest))


def write_atomically(path: Path, text: str) -> Path:
    coming = path.with_name(f".{path.name}.coming")
    coming.parent.mkdir(parents=True, exist_ok=True)
    coming.write_text(text)
    return coming.replace(path)


@pytest.mark.parametrize(
    "line",
    ["{digest}  model.onnx\n", "{digest} *model.onnx\r\n", "{digest}", "{digest}  /models/lab/1/model.onnx\n"],
    ids=["sha256sum", "binary mode", "the digest alone", "with a path"],
)
def test_a_file_with_its_digest_beside_it_is_served(folder: Path, line: str) -> None:
    digest_beside(put(folder, "lab/1"), line)
    registry = Registry.open(folder, folder / "none")
    assert (served(registry), dict(registry.rejected)) == ({"lab": ["1"]}, {})


def test_a_file_that_is_not_what_its_digest_says_waits_until_it_is(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = put(folder, "lab/1")
    digest_beside(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    registry = Registry.open(folder, folder / "none")
    assert registry.models() == []
    assert registry.rejected["lab/1"].startswith("its digest is not the one in model.onnx.sha256")
    for _ in range(3):
        assert registry.refresh() is False
    assert len([record for record in caplog.records if "digest" in record.getMessage()]) == 1
    kept = path.stat()
    path.write_bytes(whole)
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert registry.refresh() is True
    assert (served(registry), dict(registry.rejected)) == ({"lab": ["1"]}, {})


def test_a_new_file_is_taken_up_once_its_digest_has_come_too(folder: Path) -> None:
    digest_beside(put(folder, "lab/1"))
    registry = Registry.open(folder, folder / "none")
    before = registry.find("lab")
    path = put(folder, "lab/1", "mean")
    assert registry.refresh() is False
    assert registry.find("lab") is before
    assert registry.rejected["lab/1"].endswith("(the file's former content is still served)")
    digest_beside(path)
    assert registry.refresh() is True
    assert registry.find("lab").engine.digest != before.engine.digest
    assert dict(registry.rejected) == {}


@pytest.mark.parametrize("text", ["", "0123", "é" * 40, "{digest}  other.onnx\n", "{digest} a\n{digest} b\n"])
def test_a_digest_that_is_none_is_told_and_waited_for(folder: Path, text: str) -> None:
    path = put(folder, "lab/1")
    digest_beside(path, text)
    registry = Registry.open(folder, folder / "none")
    assert registry.rejected == {"lab/1": "model.onnx.sha256 beside it is not what `sha256sum model.onnx` writes"}
    digest_beside(path)
    assert registry.refresh() is True


def test_the_same_content_in_another_file_is_not_opened_again(folder: Path) -> None:
    put(folder, "lab/1")
    registry = Registry.open(folder, folder / "none")
    before = registry.find("lab")
    put(folder, "lab/1")
    assert registry.refresh() is False
    assert registry.find("lab") is before


def test_a_file_that_fails_in_an_unforeseen_way_is_told_by_its_kind_and_the_others_are_served(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Engine.load

    def fail(content: bytes) -> Engine:
        engine = load(content)
        if engine.features == 2:
            raise RecursionError("/a/path\nand more")
        return engine

    monkeypatch.setattr(Engine, "load", fail)
    put(folder, "lab/1")
    write_artifact(folder / "wide" / "1" / "model.onnx", features=2)
    registry = Registry.open(folder, folder / "none")
    assert served(registry) == {"lab": ["1"]}
    assert registry.rejected == {"wide/1": "it cannot be opened (RecursionError)"}


def test_what_a_file_says_of_itself_is_told_in_one_line(folder: Path) -> None:
    path = folder / "lab" / "1" / "model.onnx"
    write_artifact(path)
    model = onnx.load(path)
    record = json.loads(model.metadata_props[0].value) | {"a\nkey\u202e": 1}
    model.metadata_props[0].value = json.dumps(record)
    onnx.save(model, path)
    registry = Registry.open(folder, folder / "none")
    assert registry.rejected["lab/1"].startswith("its metadata is wrong at a\\nkey\\u202e: ")


def test_the_newest_versions_are_kept_and_older_ones_let_go(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for version in (1, 2, 3):
        put(folder, f"lab/{version}")
    registry = Registry.open(folder, folder / "none", newest=2)
    assert served(registry) == {"lab": ["3", "2"]}
    put(folder, "lab/4")
    with caplog.at_level(logging.INFO):
        assert registry.refresh() is True
    assert served(registry) == {"lab": ["4", "3"]}
    assert "lab/2: let go, for newer versions are there" in caplog.messages
    assert not_found(registry, "lab", "2") == "the model lab has no such version; it has: 3, 4"


def test_versions_that_cannot_be_used_do_not_push_out_those_that_can(folder: Path) -> None:
    for version in (1, 2):
        put(folder, f"lab/{version}")
    for version in (3, 4, 5):
        put_broken(folder, f"lab/{version}")
    registry = Registry.open(folder, folder / "none", newest=2)
    assert served(registry) == {"lab": ["2", "1"]}
    assert sorted(registry.rejected) == ["lab/3", "lab/4", "lab/5"]


def test_removing_the_newest_goes_back_to_the_one_before_and_takes_an_older_one_up_again(folder: Path) -> None:
    for version in (1, 2, 3):
        put(folder, f"lab/{version}")
    registry = Registry.open(folder, folder / "none", newest=2)
    shutil.rmtree(folder / "lab" / "3")
    assert registry.refresh() is True
    assert registry.find("lab").version == "2"
    assert served(registry) == {"lab": ["2", "1"]}


def test_a_version_that_was_let_go_is_freed_with_the_last_hand_that_holds_it(folder: Path) -> None:
    put(folder, "lab/1")
    registry = Registry.open(folder, folder / "none", newest=1)
    held = registry.find("lab")
    engine = weakref.ref(held.engine)
    put(folder, "lab/2", "mean")
    registry.refresh()
    assert held.engine.forecast(np.array([[[1], [2]]], np.float32), 1).item() == 3
    assert engine() is not None
    del held
    assert engine() is None


def test_a_version_with_a_label_is_kept_however_old_it_is(folder: Path) -> None:
    for version in (1, 2, 3, 4):
        put(folder, f"lab/{version}")
    write_atomically(folder / "lab" / "labels.toml", "stable = 1")
    registry = Registry.open(folder, folder / "none", newest=2)
    assert served(registry) == {"lab": ["4", "3", "1"]}
    assert registry.find("lab").version == registry.find("lab", "stable").version == "1"


def test_labels_change_with_their_file_and_go_with_it(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for version in (1, 2, 3):
        put(folder, f"lab/{version}")
    registry = Registry.open(folder, folder / "none")
    labels = write_atomically(
        folder / "lab" / "labels.toml", "stable = 1\ncanary = { version = 2, share = 0.25 }\nshadow = { version = 3 }"
    )
    with caplog.at_level(logging.INFO):
        assert registry.refresh() is True
    found = {label: registry.find("lab", label).version for label in ("stable", "canary", "shadow")}
    assert found == {"stable": "1", "canary": "2", "shadow": "3"}
    assert "lab: stable 1, canary 2 of 0.25 of the requests, shadow 3 of 1 of the requests" in caplog.messages
    assert registry.refresh() is False
    labels.unlink()
    assert registry.refresh() is True
    assert registry.find("lab").version == "3"
    assert not_found(registry, "lab", "canary") == "the model lab has no such version; it has: 1, 2, 3"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("stable = ", "it is not TOML", id="not TOML"),
        pytest.param("stable = 9", "stable: version 9 is not served; there are: 1, 2", id="not served"),
    ],
)
def test_labels_that_cannot_be_heeded_leave_those_of_before_and_are_told_once(
    folder: Path, caplog: pytest.LogCaptureFixture, text: str, told: str
) -> None:
    for version in (1, 2):
        put(folder, f"lab/{version}")
    write_atomically(folder / "lab" / "labels.toml", "stable = 1")
    registry = Registry.open(folder, folder / "none")
    write_atomically(folder / "lab" / "labels.toml", text)
    for _ in range(3):
        assert registry.refresh() is False
    assert registry.find("lab").version == "1"
    assert registry.rejected["lab/labels.toml"].startswith(told)
    assert len(caplog.records) == 1
    assert caplog.messages[0].startswith(f"lab/labels.toml: not heeded: {told}")


def test_labels_that_come_before_their_version_hold_as_soon_as_it_is_there(folder: Path) -> None:
    put(folder, "lab/1")
    write_atomically(folder / "lab" / "labels.toml", "stable = 1\ncanary = { version = 2, share = 1.0 }")
    registry = Registry.open(folder, folder / "none")
    assert list(registry.rejected) == ["lab/labels.toml"]
    put(folder, "lab/2")
    assert registry.refresh() is True
    assert registry.find("lab", "canary").version == "2"
    assert dict(registry.rejected) == {}


def test_what_is_loaded_refused_and_served_is_counted(folder: Path, tmp_path: Path) -> None:
    put(folder, "lab/1")
    put_broken(folder, "lab/2")
    write_atomically(folder / "lab" / "labels.toml", "shadow = { version = 9 }")
    registry = Registry.open(folder, folder / "none", newest=1, metrics=Metrics(tmp_path / "counts"))
    registry.refresh()
    assert counted(tmp_path / "counts") == {
        "leadtime_model_loads lab loaded": 1,
        "leadtime_model_loads lab refused": 1,
        "leadtime_model_versions_served stable lab 1": 1,
        "leadtime_model_files_refused": 2,
    }
    put(folder, "lab/3")
    registry.refresh()
    found = counted(tmp_path / "counts")
    assert found["leadtime_model_loads lab loaded"] == 2
    assert found["leadtime_model_versions_served stable lab 1"] == 0
    assert found["leadtime_model_versions_served stable lab 3"] == 1


def test_what_was_counted_of_the_last_versions_that_went_is_told_and_of_older_ones_no_more(
    folder: Path, tmp_path: Path
) -> None:
    registry = Registry.open(folder, folder / "none", newest=1, metrics=Metrics(tmp_path / "counts"))
    for version in range(1, 41):
        put(folder, f"lab/{version}")
        registry.refresh()
    found = {name.split()[-1] for name in counted(tmp_path / "counts") if "versions_served" in name}
    assert found == {str(version) for version in range(8, 41)}
    # one that comes back has not gone
    put(folder, "lab/41", seed=1)
    registry.refresh()
    shutil.rmtree(folder / "lab" / "41")
    registry.refresh()
    found = {name.split()[-1] for name in counted(tmp_path / "counts") if "versions_served" in name}
    assert found == {str(version) for version in range(9, 42)}


def test_of_a_model_that_is_gone_with_all_its_versions_nothing_is_told_in_the_end(folder: Path, tmp_path: Path) -> None:
    put(folder, "lab/1")
    registry = Registry.open(folder, folder / "none", newest=1, metrics=Metrics(tmp_path / "counts"))
    (folder / "lab").rename(folder / "shop")
    for version in range(2, 34):
        registry.refresh()
        assert counted(tmp_path / "counts")["leadtime_model_loads lab loaded"] == 1
        put(folder, f"shop/{version}")
    registry.refresh()
    assert not any("lab" in name for name in counted(tmp_path / "counts"))


def counted(folder: Path) -> dict[str, float]:
    return {
        " ".join([key.name, *(value for _, value in key.labels)]): values[0] for key, values in collect(folder).items()
    }
