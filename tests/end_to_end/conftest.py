"""One service process for all tests that do not stop it, with small limits."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.artifact import ErrorTable
from tests.artifacts import write_artifact
from tests.end_to_end.process import Running, running

LIMITS = {
    "max_body_bytes": 20_000,
    "max_windows": 8,
    "max_window_length": 100,
    "max_horizon": 50,
}


# 59 paths of errors, -29 … 29 one step ahead, and in proportion further: those of the level 80 are ± 24 one step ahead.
ERRORS = ErrorTable(
    origins=59, errors=(tuple(tuple(float(lead * size) for size in range(-29, 30)) for lead in (1, 2, 3)),), paths=True
)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`default` (straight lines, `ERRORS`), `panel` (three features, hourly), `mean` (no state), and a broken one.

    `sales` takes the futures of two columns, and `clock` reads the hours of the day; `diary` does both.
    """
    folder = tmp_path_factory.mktemp("models")
    for version in ("1", "2", "10"):
        write_artifact(folder / "default" / version / "model.onnx", version=version, errors=ERRORS)
    write_artifact(folder / "panel" / "1" / "model.onnx", features=3, name="panel", frequency="h")
    write_artifact(folder / "mean" / "1" / "model.onnx", "mean", name="mean")
    write_artifact(folder / "sales" / "1" / "model.onnx", "informed", name="sales", exogenous=("price", "promotion"))
    write_artifact(folder / "clock" / "1" / "model.onnx", "informed", name="clock", calendar=("hour",), frequency="h")
    write_artifact(
        folder / "diary" / "1" / "model.onnx",
        "informed",
        name="diary",
        calendar=("weekday",),
        exogenous=("promotion",),
        frequency="D",
    )
    broken = folder / "broken" / "1" / "model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no model")
    return folder


@pytest.fixture(scope="session")
def service(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The service, running."""
    with running(models, tmp_path_factory.mktemp("log") / "service.log", **LIMITS) as service:
        yield service


@pytest.fixture(scope="session")
def client(service: Running) -> Iterator[httpx.Client]:
    """A client of the service."""
    with service.client() as client:
        yield client


@pytest.fixture(scope="session")
def roomy_client(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service with the limits that it has by default."""
    with running(models, tmp_path_factory.mktemp("log") / "service.log") as service, service.client() as client:
        yield client
