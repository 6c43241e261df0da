"""How many cores there are to use."""

import os
from pathlib import Path

import pytest

from service.cores import usable_cores

CORES = len(os.sched_getaffinity(0))


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"cpu.max": "max 100000\n"},
        {"cpu.max": "garbage"},
        {"cpu.max": "1 0"},
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        {"cpu.max": "100000000 100000\n"},
    ],
    ids=["no control group", "no limit", "unreadable", "no period", "no limit in version 1", "more than there are"],
)
def test_without_a_limit_all_cores_that_the_process_may_run_on_count(tmp_path: Path, files: dict[str, str]) -> None:
    assert usable_cores(write(tmp_path, files)) == CORES


@pytest.mark.parametrize(
    "files",
    [
        {"cpu.max": "100000 100000\n"},
        {"cpu.max": "20000 100000\n"},
        {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"},
    ],
    ids=["one core", "a fifth of one", "half of one in version 1"],
)
def test_a_quota_of_a_core_or_less_is_one_core(tmp_path: Path, files: dict[str, str]) -> None:
    assert usable_cores(write(tmp_path, files)) == 1


def test_a_part_of_a_core_counts_as_a_whole_one(tmp_path: Path) -> None:
    assert usable_cores(write(tmp_path, {"cpu.max": "150000 100000\n"})) == min(2, CORES)
