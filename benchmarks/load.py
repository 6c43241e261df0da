"""Load from `wrk`, and what it says about it."""

import json
import math
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.questions import Question

_PATIENCE: Final = 30.0  # seconds beyond its own that wrk may take

# wrk reports in its own words; this makes it print one JSON line of exact numbers (times in microseconds)
_REPORT: Final = """
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "microseconds": %d, "p50": %d, "p90": %d, "p99": %d, "failed": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(90), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""

# Several questions are asked in an order that is random and always the same.
_SEVERAL: Final = """
request = function()
  return questions[math.random(#questions)]
end
"""

# Between an answer and the next question a connection waits: exponential, as independent callers do.
_THINK: Final = """
delay = function()
  return math.floor(-math.log(1 - math.random()) * THINK + 0.5)
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk saw: requests a second, latencies in milliseconds, and the CPU time that wrk took itself."""

    rate: float
    p50: float
    p90: float
    p99: float
    requests: int
    generator_seconds: float


class LoadError(Exception):
    """wrk failed, or a request did: a rate with errors in it means nothing."""


def wrk() -> str:
    """The path of wrk; ends the program where it is not installed."""
    found = shutil.which("wrk")
    if found is None:
        sys.exit("wrk is not installed (on Debian and Ubuntu: apt-get install wrk)")
    return found


class Generator:
    """One wrk under way: `finish` waits for its end. Several may run at once."""

    def __init__(
        self,
        port: int,
        questions: Question | Sequence[Question],
        *,
        connections: int,
        seconds: int,
        core: int | None,
        think: float = 0.0,
    ) -> None:
        """Ask over and over for some seconds, keeping connections open.

        Args:
            port: where the server listens on the loopback.
            questions: what to ask; of several, one at random each time.
            connections: open connections, each with one question at a time.
            seconds: how long.
            core: the core to run on; None for any.
            think: mean milliseconds from an answer to the next question on a connection; 0 = at once.
        """
        several = [questions] if isinstance(questions, Question) else list(questions)
        self._seconds = seconds
        self._folder = tempfile.TemporaryDirectory()
        script = Path(self._folder.name) / "load.lua"
        script.write_text(_script(several, think))
        command = [wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script)]
        command += [f"http://127.0.0.1:{port}{several[0].path}"]
        if core is not None:
            command = ["taskset", "--cpu-list", str(core), *command]
        self._started = _children_seconds()
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self) -> Load:
        """Wait for the end, and say what was seen.

        Raises:
            LoadError: wrk failed, or any request failed.
        """
        with self._folder:
            output, complaints = self._process.communicate(timeout=self._seconds + _PATIENCE)
        if self._process.returncode != 0:
            raise LoadError(f"wrk ended with status {self._process.returncode}: {complaints.strip() or output.strip()}")
        return read_report(output, _children_seconds() - self._started)


def drive(
    port: int, questions: Question | Sequence[Question], *, connections: int, seconds: int, core: int | None
) -> Load:
    """Ask as fast as answers come, for some seconds.

    Raises:
        LoadError: wrk failed, or any request failed.
    """
    return Generator(port, questions, connections=connections, seconds=seconds, core=core).finish()


def read_report(output: str, generator_seconds: float = 0.0) -> Load:
    """Read what the script made wrk print.

    Raises:
        LoadError: there is no report in it, nothing was answered, or any request failed.
    """
    found = re.search(r"^RESULT (.*)$", output, re.MULTILINE)
    if found is None:
        raise LoadError(f"wrk printed no report: {output.strip()}")
    result = json.loads(found[1])
    if result["failed"]:
        raise LoadError(f"{result['failed']} of {result['requests']} requests failed")
    if not result["requests"]:
        raise LoadError("no request was answered")
    return Load(
        rate=result["requests"] / result["microseconds"] * 1e6,
        p50=result["p50"] / 1e3,
        p90=result["p90"] / 1e3,
        p99=result["p99"] / 1e3,
        requests=result["requests"],
        generator_seconds=generator_seconds,
    )


def log_uniform(largest: int, count: int, seed: int = 0) -> list[int]:
    """So many whole numbers from 1 to `largest`, each octave as likely as any other."""
    rng = random.Random(seed)
    return [int(math.exp(rng.uniform(0, math.log(largest + 1)))) for _ in range(count)]


def _script(questions: Sequence[Question], think: float) -> str:
    first = questions[0]
    lines = ["wrk.method = 'POST'", f"wrk.body = {lua(first.body)}"]
    lines += [f"wrk.headers[{lua(name.encode())}] = {lua(value.encode())}" for name, value in first.headers.items()]
    if len(questions) > 1:
        # Made once at the start: putting a request together for each one would cost the generator its speed.
        made = ", ".join(f"wrk.format(nil, {lua(one.path.encode())}, nil, {lua(one.body)})" for one in questions)
        lines += ["init = function(arguments)", "  math.randomseed(1)", f"  questions = {{{made}}}", "end", _SEVERAL]
    if think > 0:
        lines.append(_THINK.replace("THINK", repr(think)))
    return "\n".join([*lines, _REPORT])


def lua(text: bytes) -> str:
    """Any bytes as a Lua string."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03d}" for byte in text)
    return f'"{"".join(plain)}"'


def _children_seconds() -> float:
    """CPU seconds of the children that have ended; of several at once, each is told those of all."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
