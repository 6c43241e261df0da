"""The watch over an event loop, in processes of their own: it ends them."""

import subprocess
import sys

from service.watchdog import HUNG

WATCHED = """
import asyncio, time
from service.watchdog import Watchdog

beats = []
watchdog = Watchdog({patience}, lambda: beats.append(time.monotonic()))

def stands_still(seconds):
    time.sleep(seconds)

async def main():
    {before}
    watchdog.watch(asyncio.get_running_loop())
    await asyncio.sleep(2)
    {after}

asyncio.run(main())
print(len(beats))
"""


def run(patience: float, *, before: str = "", after: str = "") -> subprocess.CompletedProcess[str]:
    script = WATCHED.format(patience=patience, before=before or "pass", after=after or "pass")
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)


def test_a_loop_that_turns_is_left_alone_and_told_of() -> None:
    done = run(10.0)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) >= 2


def test_a_loop_that_stands_still_ends_the_process_and_shows_where() -> None:
    done = run(1.0, after="stands_still(60)")
    assert done.returncode == HUNG
    assert done.stderr.startswith("leadtime: the event loop has not turned for 1 s; the process ends. It stands here:")
    assert "in stands_still" in done.stderr


def test_without_patience_a_loop_may_stand_still_for_good() -> None:
    assert run(0.0, after="stands_still(2)").returncode == 0


def test_what_comes_before_the_loop_is_watched_may_take_its_time() -> None:
    assert run(1.0, before="stands_still(3)").returncode == 0
