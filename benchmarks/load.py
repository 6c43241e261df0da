"""Load from `wrk`, and what it says about it."""

import json
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# wrk reports in its own words; this makes it print one JSON line of exact numbers (times in microseconds)
_REPORT: Final = """
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('RESULT {"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "failed": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk saw: requests a second, and latencies in milliseconds."""

    rate: float
    p50: float
    p99: float


def drive(wrk: str, port: int, path: str, body: bytes, *, connections: int, seconds: int, core: int | None) -> Load:
    """Post one JSON body over and over for some seconds.

    Raises:
        RuntimeError: wrk failed, or any request failed: a rate with errors in it means nothing.
    """
    script = f"wrk.method = 'POST'\nwrk.body = {_lua(body)}\nwrk.headers['Content-Type'] = 'application/json'\n"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "load.lua"
        file.write_text(script + _REPORT)
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(file), f"http://127.0.0.1:{port}{path}"]
        if core is not None:
            command = ["taskset", "--cpu-list", str(core), *command]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 20, check=False)
    found = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    if done.returncode != 0 or found is None:
        raise RuntimeError(f"wrk ended with status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    result = json.loads(found[1])
    if result["failed"]:
        raise RuntimeError(f"{result['failed']} of {result['requests']} requests to {path} failed")
    return Load(
        rate=result["requests"] / result["microseconds"] * 1e6, p50=result["p50"] / 1e3, p99=result["p99"] / 1e3
    )


def _lua(body: bytes) -> str:
    """A Lua long string; JSON holds no `]==]`."""
    return f"[==[{body.decode()}]==]"
