"""The peers: how each is started, and how it is asked for a forecast.

Each serves the same file as the service, with onnxruntime on one thread, in its own best configuration; where it is not
known beforehand which configuration is best, several are here, and the best of them counts. Several steps are made by
running the window again for each, the usual way; Triton alone does it by carrying the state as well.
"""

import json
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.environments import PEERS, packages_of, python_of
from benchmarks.questions import CACHE, CONTEXT, HORIZON, WINDOW, Question, artifact, as_json
from benchmarks.servers import Server, free_port, running

ONE_STEP: Final = "one step"
SEVERAL_STEPS: Final = f"{HORIZON} steps"


@dataclass(frozen=True, slots=True)
class Form:
    """One way to ask a peer for one step and for several."""

    name: str
    questions: Mapping[str, Question]
    carried: bool = False
    """Whether several steps are made by carrying the state, as the service does."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One server process of a peer, with one configuration."""

    name: str
    """What it is called in the tables, also where it is one configuration of several."""
    environment: str
    """The folder under `benchmarks/peers`, and of its environment."""
    command: Callable[[int], Sequence[str]]
    """How it is started on a port."""
    ready: str
    forms: Sequence[Form]
    settings: Callable[[], Mapping[str, str]] = dict
    pausable: bool = True
    """Whether it bears to be stopped for a while."""
    starts_on_all_cores: bool = False
    """Whether it needs more than the servers' core to start in time; it is moved there afterwards."""

    @contextmanager
    def running(self, model: str, cores: str | None) -> Iterator[Server]:
        """Run it with one of the benchmarks' models."""
        port = free_port()
        settings = {"BENCH_MODEL": str(artifact(model)), **self.settings()}
        first = None if self.starts_on_all_cores else cores
        name = f"{self.name} {model}"
        started = running(name, self.command(port), ready=self.ready, cores=first, port=port, settings=settings)
        with started as server:
            server.pausable = self.pausable
            if self.starts_on_all_cores and cores is not None:
                server.pin(cores)
            yield server


def peers() -> list[Peer]:
    """Every peer, in every configuration that is measured."""
    return [
        _triton(),
        _fastapi(),
        *(_litserve(name, batch) for name, batch in (("LitServe", 1), ("LitServe, batched", 16))),
        _bentoml(),
        *(_mlserver(name, batch) for name, batch in (("MLServer", 0), ("MLServer, batched", 16))),
        _kserve(),
        _ray(),
    ]


def _fastapi() -> Peer:
    python = str(python_of("fastapi"))
    folder = str(PEERS / "fastapi")
    options = ["--no-access-log", "--log-level", "warning"]
    return Peer(
        "FastAPI",
        "fastapi",
        lambda port: [python, "-m", "uvicorn", "--app-dir", folder, "server:app", "--port", str(port), *options],
        "/health",
        [
            Form(f"`{kind} def`".replace("def def", "def"), _windows(f"/{kind}/forecast", f"/{kind}/multi-step"))
            for kind in ("def", "async")
        ],
    )


def _litserve(name: str, batch: int) -> Peer:
    return Peer(
        name,
        "litserve",
        lambda port: [str(python_of("litserve")), str(PEERS / "litserve" / "server.py"), str(port)],
        "/health",
        [Form("batches of 16" if batch > 1 else "one by one", _windows("/predict", "/predict"))],
        lambda: {"BATCH": str(batch)},
    )


def _bentoml() -> Peer:
    folder = PEERS / "bentoml"
    python = python_of("bentoml")

    def batched(path: str) -> Question:
        return as_json(path, {"windows": [WINDOW]}, lambda answer: answer[0])

    def one_by_one(name: str, path: str) -> Form:
        asked = {ONE_STEP: {"window": WINDOW}, SEVERAL_STEPS: {"window": WINDOW, "horizon": HORIZON}}
        return Form(name, {kind: as_json(path, body, lambda answer: answer) for kind, body in asked.items()})

    return Peer(
        "BentoML",
        "bentoml",
        lambda port: [
            str(python.with_name("bentoml")),
            *("serve", "service:Forecaster", "--working-dir", str(folder)),
            *("--host", "127.0.0.1", "--port", str(port)),
        ],
        "/readyz",
        [
            one_by_one("`def`", "/plain"),
            one_by_one("`async def`", "/loop"),
            Form("adaptive batches", {ONE_STEP: batched("/batched"), SEVERAL_STEPS: batched("/batched_multi_step")}),
        ],
        lambda: {"BENTOML_DO_NOT_TRACK": "1", "PATH": f"{python.parent}:/usr/bin:/bin"},
    )


def _mlserver(name: str, batch: int) -> Peer:
    folder = CACHE / "mlserver" / str(batch)

    def command(port: int) -> Sequence[str]:
        folder.mkdir(parents=True, exist_ok=True)
        ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
        quiet = {"debug": False, "parallel_workers": 0, "metrics_endpoint": None}
        _write(folder / "settings.json", {"host": "127.0.0.1", **ports, **quiet})
        batching = {"max_batch_size": batch, "max_batch_time": 0.001} if batch else {}
        _write(
            folder / "model-settings.json",
            {"name": "forecaster", "implementation": "forecaster.Forecaster", **batching},
        )
        return [str(python_of("mlserver").with_name("mlserver")), "start", str(folder)]

    # Its batching joins requests whose inputs agree in all but the first dimension.
    path = "/v2/models/forecaster/infer"
    return Peer(
        name,
        "mlserver",
        command,
        "/v2/health/ready",
        [
            Form(
                "batches of 16" if batch else "one by one",
                {kind: _open_inference(path, horizon) for kind, horizon in ((ONE_STEP, 1), (SEVERAL_STEPS, HORIZON))},
            )
        ],
        lambda: {"PYTHONPATH": str(PEERS / "mlserver")},
    )


def _kserve() -> Peer:
    path = "/v1/models/forecaster:predict"
    asked = {ONE_STEP: {"instances": [WINDOW]}, SEVERAL_STEPS: {"instances": [WINDOW], "horizon": HORIZON}}
    return Peer(
        "KServe",
        "kserve",
        lambda port: [str(python_of("kserve")), str(PEERS / "kserve" / "server.py"), str(port)],
        "/v2/health/ready",
        [
            Form(
                "v1 protocol",
                {kind: as_json(path, body, lambda answer: answer["predictions"][0]) for kind, body in asked.items()},
            )
        ],
    )


def _ray() -> Peer:
    return Peer(
        "Ray Serve",
        "ray",
        lambda port: [str(python_of("ray")), str(PEERS / "ray" / "server.py"), str(port)],
        "/",
        [Form("one by one", _windows("/", "/")), Form("batches of 16", _windows("/", "/", batched=True))],
        lambda: {
            "PATH": f"{python_of('ray').parent}:/usr/bin:/bin",
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            # Its parts watch each other by the clock, which goes on while they stand still.
            "RAY_health_check_timeout_ms": "3600000",
            "RAY_health_check_failure_threshold": "1000",
        },
        starts_on_all_cores=True,
    )


def _triton() -> Peer:
    def command(port: int) -> Sequence[str]:
        server = packages_of("triton") / "pytriton" / "tritonserver"
        return [
            str(server / "bin" / "tritonserver"),
            f"--model-repository={PEERS / 'triton' / 'repository'}",
            f"--backend-directory={server / 'backends'}",
            f"--http-port={port}",
            *("--http-address=127.0.0.1", "--http-thread-count=1"),  # more take turns on the one core
            *("--allow-grpc=false", "--allow-metrics=false", "--disable-auto-complete-config", "--log-info=false"),
        ]

    def settings() -> Mapping[str, str]:
        python = python_of("triton")
        # Its own Python is this one, as a library.
        return {"PATH": f"{python.parent}:/usr/bin:/bin", "LD_LIBRARY_PATH": str(Path(sys.base_prefix) / "lib")}

    one, sliding, carried = (f"/v2/models/{name}/infer" for name in ("one_step", "sliding", "carried"))
    return Peer(
        "Triton",
        "triton",
        command,
        "/v2/health/ready",
        [
            Form("JSON", {ONE_STEP: _open_inference(one, 1), SEVERAL_STEPS: _open_inference(sliding, HORIZON, (1, 1))}),
            Form("binary tensors", {ONE_STEP: _binary(one, 1), SEVERAL_STEPS: _binary(sliding, HORIZON)}),
            Form("nothing but bytes", {ONE_STEP: _raw(one)}),
            Form("JSON, state carried", {SEVERAL_STEPS: _open_inference(carried, HORIZON, (1, 1))}, carried=True),
            Form("binary tensors, state carried", {SEVERAL_STEPS: _binary(carried, HORIZON)}, carried=True),
        ],
        settings,
        pausable=False,  # its parts watch each other by the clock, and it takes next to no time when idle
    )


def _windows(one: str, several: str, **extra: object) -> dict[str, Question]:
    def read(answer: Any) -> Sequence[float]:
        found = answer["forecast"]
        return found if isinstance(found, list) else [found]

    return {
        ONE_STEP: as_json(one, {"window": WINDOW, **extra}, read),
        SEVERAL_STEPS: as_json(several, {"window": WINDOW, "horizon": HORIZON, **extra}, read),
    }


def _open_inference(path: str, horizon: int, shape: Sequence[int] = (1,)) -> Question:
    """A question in JSON of the Open Inference Protocol; the horizon is an input of its own where it is not 1."""
    inputs = [{"name": "values", "shape": [1, CONTEXT, 1], "datatype": "FP32", "data": WINDOW}]
    if horizon > 1:
        inputs.append({"name": "horizon", "shape": list(shape), "datatype": "INT32", "data": [horizon]})
    return as_json(path, {"inputs": inputs}, lambda answer: answer["outputs"][0]["data"])


_LENGTH: Final = "inference-header-content-length"


def _binary(path: str, horizon: int) -> Question:
    """A question of the same protocol with its tensors as bytes after the JSON, both ways."""
    values = struct.pack(f"<{CONTEXT}f", *WINDOW)
    inputs: list[dict[str, object]] = [_tensor("values", [1, CONTEXT, 1], "FP32", len(values))]
    if horizon > 1:
        inputs.append(_tensor("horizon", [1, 1], "INT32", 4))
        values += struct.pack("<i", horizon)
    document = {"inputs": inputs, "outputs": [{"name": "forecast", "parameters": {"binary_data": True}}]}
    head = json.dumps(document).encode()
    headers = {"content-type": "application/octet-stream", _LENGTH: str(len(head))}
    return Question(path, head + values, _read_binary, headers)


def _raw(path: str) -> Question:
    """A question that is its one tensor, without any JSON: Triton's shortest."""
    values = struct.pack(f"<{CONTEXT}f", *WINDOW)
    return Question(path, values, _read_binary, {"content-type": "application/octet-stream", _LENGTH: "0"})


def _tensor(name: str, shape: Sequence[int], datatype: str, size: int) -> dict[str, object]:
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}


def _read_binary(headers: Mapping[str, str], body: bytes) -> Sequence[float]:
    return [number for (number,) in struct.iter_unpack("<f", body[int(headers[_LENGTH]) :])]


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document))
