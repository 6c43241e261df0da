"""From the start of the process to its first answer."""

import contextlib
import http.client
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import Any, Final

from benchmarks.questions import MODELS, ROOT, WINDOW, to_service
from benchmarks.rates import Place
from benchmarks.servers import free_port

_PATIENCE: Final = 30.0


def measure(place: Place, *, rounds: int) -> dict[str, Any]:
    """Start the service so many times on one core, and note the seconds until a forecast was answered with 200."""
    _seconds(place)  # the first reads the files from the disk
    seconds = [_seconds(place) for _ in range(rounds)]
    return {"median": statistics.median(seconds), "most": max(seconds), "starts": rounds}


def _seconds(place: Place) -> float:
    port = free_port()
    settings = {"LEADTIME_PORT": str(port), "LEADTIME_MODELS": str(MODELS), "LEADTIME_DEFAULT_MODEL": "uni"}
    command = [sys.executable, "-m", "service"]
    if place.server is not None:
        command = ["taskset", "--cpu-list", place.server, *command]
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **settings, "LEADTIME_LOG_LEVEL": "warning"}, stdout=subprocess.DEVNULL
    )
    try:
        while time.perf_counter() - started < _PATIENCE:
            if _answers(port):
                return time.perf_counter() - started
            time.sleep(0.002)
    finally:
        process.terminate()
        process.wait()
    raise RuntimeError(f"the service did not answer within {_PATIENCE:.0f} s")


def _answers(port: int) -> bool:
    question = to_service(WINDOW, 1)
    with contextlib.suppress(OSError, http.client.HTTPException):
        # A connection that is refused costs little; only one that is taken gets the request.
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.closing(connection):
            connection.request("POST", question.path, question.body, dict(question.headers))
            return connection.getresponse().status == 200
    return False
