"""Services are restarted behind a balancer."""

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.questions import ROOT
from benchmarks.servers import free_port
from chaos.checks import Options, count, result
from chaos.load import Load, percentiles
from chaos.service import Instance
from chaos.versions import QUESTIONS, Versions

TITLE: Final = "Services are restarted behind a balancer"

_SETTLED: Final = 0.5


def run(options: Options) -> dict[str, Any]:
    """Stop one of two services and start it again, the other one next, over and over, while both are asked."""
    codes: list[int] = []
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        versions = Versions(Path(folder))
        instances = [stack.enter_context(Instance(Path(folder))) for _ in range(2)]
        port = stack.enter_context(_balanced(instances))
        with Load(port, QUESTIONS, options.rate, patience=options.patience) as load:
            time.sleep(_SETTLED)
            for number in range(options.restarts):
                instance = instances[number % 2]
                begin = time.monotonic()
                instance.signal(signal.SIGTERM)
                codes.append(instance.wait())
                instance.start()
                seconds.append(time.monotonic() - begin)
                time.sleep(_SETTLED)
            answered = load.finish()
        tracebacks = sum(instance.tracebacks for instance in instances)
    wrong = versions.wrong(answered)
    return result(
        [
            count("failed requests", len(answered.failures)),
            count("wrong answers", len(wrong)),
            count("restarts whose exit code was not 0", sum(code != 0 for code in codes)),
            count("tracebacks", tracebacks),
        ],
        restarts=options.restarts,
        rate=options.rate,
        requests=answered.asked,
        seconds_of_a_restart=max(seconds),
        latency=percentiles(answered.milliseconds()),
        failures=[failure.reason for failure in answered.failures[:10]] + wrong[:10],
    )


@contextlib.contextmanager
def _balanced(instances: Sequence[Instance]) -> Iterator[int]:
    """A balancer before services; gives its port."""
    port = free_port()
    command = [sys.executable, "-m", "chaos.balancer", str(port), *(str(instance.port) for instance in instances)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            if process.stdout.readline() != "listening\n":
                raise RuntimeError("the balancer did not start")
            yield port
        finally:
            process.kill()
