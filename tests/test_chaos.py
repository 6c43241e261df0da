"""The short form of `make chaos`: each kind for a moment, and the tools that they are made of.

What takes how long is not looked at here, for the machine may be busy with other tests.
"""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from chaos import clients, fuzz, kill, reloads, restarts, soak
from chaos.__main__ import as_text, main
from chaos.checks import Check, Options, checks_in, count, least, result, within
from chaos.files import content_of, opened
from chaos.kinds import KINDS
from chaos.load import Answered, Failure, percentiles
from chaos.mutations import mutated_bytes, mutated_document, mutated_message
from chaos.report import DOCUMENT, document
from chaos.responses import Garbled, Response, fault_in, responses_in
from chaos.results import keep, kept
from chaos.soak import slope_of
from chaos.versions import Versions
from chaos.wire import mutated_request
from tests.artifacts import build_model

SHORT = Options(
    rate=100, reloads=4, restarts=1, kills=1, patience=120, seconds=0.3, rounds=1, requests=400, files=60, minutes=0.05
)


def broken(found: dict[str, Any]) -> list[Check]:
    """The promises that were not kept, but for those of time."""
    return [check for check in checks_in(found) if not check.holds and not check.promised.endswith((" s", " ×"))]


def test_no_request_fails_while_models_are_replaced_by_good_and_bad_ones() -> None:
    found = reloads.run(SHORT)
    assert broken(found) == []
    assert found["refused"] == ["truncated"]


def test_no_request_fails_while_a_service_is_restarted_behind_a_balancer() -> None:
    assert broken(restarts.run(SHORT)) == []


def test_a_killed_worker_takes_no_request_with_it_but_its_own() -> None:
    found = kill.run(SHORT)
    assert broken(found) == []
    assert found["workers_asked"] == found["workers"]


def test_bad_clients_break_nothing_and_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: (client, min(number, 50)) for name, (client, number) in clients.BAD.items()}
    monkeypatch.setattr(clients, "BAD", few)
    assert broken(clients.run(SHORT)) == []


def test_whatever_is_mutated_is_answered_or_refused_as_documented() -> None:
    assert broken(fuzz.run(SHORT)) == []


def test_a_mixed_load_is_answered_as_it_should_be_while_models_come_and_go() -> None:
    found = soak.run(SHORT)
    assert [check for check in broken(found) if check.what != "growth of resident memory"] == []


def test_mutations_are_those_of_their_seed() -> None:
    def drawn() -> list[bytes]:
        rngs = [random.Random(seed) for seed in range(50)]
        documents = [mutated_document({"window": [1, 2, 3], "model": "a"}, rng) for rng in rngs]
        return documents + [mutated_bytes(b"abc" * 30, rng) for rng in rngs]

    assert drawn() == drawn()
    assert len(set(drawn())) > 50
    assert mutated_request(1, 2) == mutated_request(1, 2) != mutated_request(1, 3)
    assert content_of("tables", 1, 2) == content_of("tables", 1, 2)


def test_messages_are_mutated_in_any_of_their_fields() -> None:
    sound = build_model("drift")
    changed = 0
    for seed in range(200):
        model = onnx.ModelProto.FromString(sound.SerializeToString())
        mutated_message(model, random.Random(seed))
        changed += model != sound
    assert changed > 100


def test_a_file_that_its_process_dies_of_is_counted_and_those_behind_it_are_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chaos.files._PROGRAM", ["-c", DYING])
    found = opened("tables", 5, 1)
    assert found.count == 5
    assert found.outcomes == {"refused": 4}
    (failure,) = found.failures
    assert failure.startswith("tables 1/2: the process ended with status -9")


# Stands for the process that opens files: it dies of the third.
DYING = """
import os, sys
first, count = int(sys.argv[2]), int(sys.argv[3])
for number in range(first, first + count):
    print(number, "begin", flush=True)
    if number == 2:
        os.kill(os.getpid(), 9)
    print(number, "refused", flush=True)
"""


def test_responses_are_taken_apart_as_they_come() -> None:
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    told, rest = responses_in(b"HTTP/1.1 100 Continue\r\n\r\n" + one + one[:-1])
    assert [response.status for response in told] == [100, 200]
    assert rest == one[:-1]
    told, rest = responses_in(one[:-2] + one, to_head=True)
    assert ([response.body for response in told], rest) == ([b"", b"{}"], b"")
    with pytest.raises(Garbled):
        responses_in(b"SSH-2.0\r\n\r\n")


@pytest.mark.parametrize(
    ("status", "kind", "body", "fault"),
    [
        (200, "application/json", b"[1]", None),
        (200, "application/json", b"[NaN]", "whose body is no JSON"),
        (500, "application/problem+json", b"{}", "status 500"),
        (422, "application/problem+json", b'{"type": "/problems/invalid-request", "status": 422}', None),
        (422, "application/problem+json", b'{"type": "/problems/not-found", "status": 422}', "is of 422, not-found"),
        (422, "application/problem+json", b'{"type": "/problems/news", "status": 422}', "not documented: news"),
        (200, "application/vnd.apache.arrow.stream", b"no stream", "whose body is no Arrow stream"),
        (502, "text/plain", b"", "status 502"),
    ],
)
def test_an_answer_is_judged_by_what_the_documents_promise(
    status: int, kind: str, body: bytes, fault: str | None
) -> None:
    found = fault_in(Response(status, {b"content-type": kind.encode()}, body))
    assert found is None if fault is None else fault in str(found)


def test_answers_are_held_against_the_versions_that_were_valid(tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    versions.put(2)

    def body(version: str, values: list[float]) -> bytes:
        return json.dumps({"version": version, "forecasts": [{"values": values}]}).encode()

    def answered(*bodies: bytes, done: float = float("inf")) -> Answered:
        zeros = np.zeros(len(bodies), np.int64)
        times = np.full(len(bodies), done)
        return Answered(times, times, times, zeros, zeros, np.arange(len(bodies)), bodies, [], len(bodies))

    one, two = (body(version, versions.expected[version][0]) for version in ("1", "2"))
    assert versions.wrong(answered(one, two)) == []
    assert versions.wrong(answered(two, one)) == ["version 1 answered after 2 had"]
    assert versions.wrong(answered(one, done=0.0)) == ["version 1 answered before it was there"]
    assert "where it forecasts" in versions.wrong(answered(body("1", versions.expected["2"][0])))[0]
    assert "never valid" in versions.wrong(answered(body("3", [1.0])))[0]


def test_latencies_are_those_of_the_requests_that_were_due_within_a_time() -> None:
    due = np.array([0.0, 1.0, 2.0])
    none = np.zeros(3, np.int64)
    answered = Answered(
        due, due, due + np.array([0.001, 0.002, 0.004]), none, none, none, [b""], [Failure(0, 0, "")], 3
    )
    assert percentiles(answered.milliseconds(1.0, 2.0))["p50"] == pytest.approx(2.0)
    assert answered.longest_gap() == pytest.approx(1.002)


def test_the_slope_of_memory_has_a_standard_error_that_noise_does_not_pass() -> None:
    rng = np.random.default_rng(0)
    seconds = list(map(float, range(1200)))
    flat = [100 + noise for noise in rng.normal(0, 1, 1200)]
    slope, error = slope_of(seconds, flat)
    assert abs(slope) < 3 * error
    slope, error = slope_of(seconds, [have + second / 60 for have, second in zip(flat, seconds, strict=True)])
    assert slope == pytest.approx(1.0, abs=3 * error)


def test_promises_are_told_beside_what_was_found(tmp_path: Path) -> None:
    checks = [count("failures", 0), count("others", 3, 2), least("versions", 15, 16), within("gap", 0.5, 2, "s")]
    assert [check.holds for check in checks] == [True, False, False, True]
    assert "  BROKEN  others         3  (at most 2)\n" in as_text(checks)
    keep("kill", result(checks, kills=1), tmp_path)
    assert checks_in(kept("kill", tmp_path) or {}) == checks
    assert kept("reloads", tmp_path) is None


def test_the_document_is_that_of_what_is_kept() -> None:
    found = {kind: held for kind in KINDS if (held := kept(kind))}
    assert DOCUMENT.read_text(encoding="utf-8") == document(found)


def test_a_promise_that_is_broken_is_an_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for holds in (True, False):
        found = {"checks": [{"what": "a", "found": "1", "promised": "0", "holds": holds}], "failures": []}
        monkeypatch.setattr(kill, "run", lambda options, found=found: replace(options) and found)
        assert main(["kill", "--results", str(tmp_path)]) == int(not holds)
