"""`python -m chaos.inside FIRST COUNT SEED`: mutated requests straight into the application, without a connection.

Its process is one of its own: it may die of a request, and ends itself where one takes too long.
"""

import asyncio
import faulthandler
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

from benchmarks.questions import ROOT
from chaos.questions import Question, make_models, mutated_question
from chaos.responses import Response, fault_in
from service.api import forecast
from service.api.shortcut import Shortcut
from service.app import create_app
from service.settings import Settings

_PATIENCE: Final = 60.0
_START: Final = 120.0


def asked_inside(count: int, seed: int, first: int = 0) -> tuple[Counter[str], list[str]]:
    """Ask so many mutated requests; returns how many were answered with each status, and what went wrong."""
    command = [sys.executable, "-m", "chaos.inside", str(first), str(count), str(seed)]
    limit = _START + _PATIENCE + count * 0.02
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        return Counter(), [f"inside {seed}: the process took more than {limit:.0f} s"]
    if done.returncode != 0:
        return Counter(), [f"inside {seed}: the process ended with status {done.returncode}: {done.stderr[-2000:]}"]
    found = json.loads(done.stdout.splitlines()[-1])
    return Counter(found["statuses"]), found["failures"]


def main() -> None:
    first, count, seed = map(int, sys.argv[1:4])
    with tempfile.TemporaryDirectory() as folder:
        settings = {"LEADTIME_MODELS": str(make_models(Path(folder))), "LEADTIME_REFRESH_SECONDS": "0"}
        statuses, failures = asyncio.run(_asked(Settings.from_environment(settings), first, count, seed))
    print(json.dumps({"statuses": statuses, "failures": failures}))


async def _asked(settings: Settings, first: int, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    application = create_app(settings)
    statuses: Counter[str] = Counter()
    failures: list[str] = []
    async with application.router.lifespan_context(application) as state:
        shortcut = Shortcut(application, forecast.ANSWERS)
        for number in range(first, first + count):
            faulthandler.dump_traceback_later(_PATIENCE, exit=True)
            rng = random.Random(f"{seed}/inside/{number}")
            question = mutated_question(rng)
            try:
                response = await _answer(shortcut, dict(state or {}), question, rng)
            except Exception as error:
                failures.append(
                    f"inside {seed}/{number}: {type(error).__name__}: {str(error)[:200]!r} {question!r:.400}"
                )
                continue
            statuses[str(response.status)] += 1
            if (fault := fault_in(response)) is not None:
                failures.append(f"inside {seed}/{number}: {fault} {question!r:.400}")
        faulthandler.cancel_dump_traceback_later()
    return statuses, failures


async def _answer(application: Shortcut, state: dict[str, Any], question: Question, rng: random.Random) -> Response:
    path, _, query = question.path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": question.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [*question.headers, (b"content-length", b"%d" % len(question.body))],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": state,
    }
    parts = _parts(question.body, rng)
    told: list[Any] = []

    async def receive() -> dict[str, Any]:
        if parts:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
        return {"type": "http.disconnect"} if told else await asyncio.Future()

    async def send(message: Any) -> None:
        told.append(message)

    await application(scope, receive, send)
    headers = {name.lower(): value for name, value in told[0]["headers"]}
    return Response(told[0]["status"], headers, b"".join(message.get("body", b"") for message in told[1:]))


def _parts(body: bytes, rng: random.Random) -> list[bytes]:
    if rng.random() < 0.8 or not body:
        return [body]
    cut = rng.randrange(len(body))
    return [body[:cut], b"", body[cut:]]


if __name__ == "__main__":
    main()
