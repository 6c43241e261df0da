"""A file of labels: what it may say, and that every fault is told in one line that names its place."""

import re
from pathlib import Path

import pytest

from service.errors import LabelsError
from service.labels import NO_LABELS, Labels, read_labels

GOOD = """
stable = 3
canary = { version = "4", share = 0.05 }

[shadow]
version = 5
"""


def read(tmp_path: Path, text: str | bytes) -> Labels:
    path = tmp_path / "labels.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_labels(path)


def test_a_file_names_the_versions_and_shares_of_its_labels(tmp_path: Path) -> None:
    labels = read(tmp_path, GOOD)
    assert labels.stable == "3"
    assert labels.canary is not None
    assert (labels.canary.version, labels.canary.share) == ("4", 0.05)
    assert labels.shadow is not None
    assert (labels.shadow.version, labels.shadow.share) == ("5", 1.0)
    assert labels.versions == {"3", "4", "5"}


def test_every_line_may_be_left_out(tmp_path: Path) -> None:
    assert read(tmp_path, "") == NO_LABELS
    assert NO_LABELS.versions == set()


@pytest.mark.parametrize("share", ["0", "1", "0.0", "1.0", "1e-3"])
def test_a_share_is_any_part_of_the_whole(tmp_path: Path, share: str) -> None:
    labels = read(tmp_path, f"canary = {{ version = 1, share = {share} }}")
    assert labels.canary is not None
    assert labels.canary.share == float(share)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("stable = ", "it is not TOML: Invalid value (at end of document)", id="not TOML"),
        pytest.param("stable = 1\nstable = 2", "it is not TOML: Cannot overwrite a value", id="twice"),
        pytest.param(b"stable = '\xff'", "it is not text in UTF-8", id="not text"),
        pytest.param("a = " + "[" * 20_000, "it is not TOML that can be read", id="deep"),
        pytest.param("#" * 70_000, "it has more than 65536 bytes", id="long"),
        pytest.param("newest = 1", "there is no key 'newest'; there are: stable, canary, shadow", id="unknown label"),
        pytest.param(
            "canary = { version = 1, weight = 5, share = 0.1 }",
            "there is no key 'canary.weight'; there are: version, share",
            id="unknown key",
        ),
        pytest.param("canary = { share = 0.1 }", "canary.version is missing", id="no version"),
        pytest.param("canary = { version = 4 }", "canary.share is missing", id="no share"),
        pytest.param("canary = 4", "canary must be a table, such as", id="no table"),
        pytest.param("stable = 0", "stable must be the number of a version, such as 3", id="version zero"),
        pytest.param("stable = true", "stable must be the number of a version, such as 3", id="truth"),
        pytest.param("stable = '007'", "stable must be the number of a version, such as 3", id="leading zero"),
        pytest.param("shadow = { version = 1, share = 5 }", "shadow.share must be a number from 0.0 to 1.0", id="more"),
        pytest.param("shadow = { version = 1, share = nan }", "shadow.share must be a number from", id="no number"),
        pytest.param("shadow = { version = 1, share = true }", "shadow.share must be a number from", id="a truth"),
        pytest.param("shadow = { version = 1, share = '1' }", "shadow.share must be a number from", id="text"),
        pytest.param(
            "stable = 1\ncanary = { version = 1, share = 0.5 }",
            "canary and stable are both version 1: name two",
            id="canary of itself",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(tmp_path: Path, text: str | bytes, fault: str) -> None:
    with pytest.raises(LabelsError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(fault)
    assert "\n" not in str(caught.value)


def test_several_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=r"^stable must be .*; canary\.share is missing$"):
        read(tmp_path, "stable = -1\ncanary = { version = 2 }")


def test_a_file_that_is_gone_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="it cannot be read: No such file or directory"):
        read_labels(tmp_path / "labels.toml")


def test_the_example_of_the_document_is_a_file_of_labels(tmp_path: Path) -> None:
    document = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", document, re.DOTALL)
    assert read(tmp_path, example).versions == {"3", "4", "5"}
