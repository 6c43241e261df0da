"""The peers' environments: each has its own, from `benchmarks/peers/<peer>/requirements.txt`."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.questions import CACHE, ROOT

PEERS: Final = ROOT / "benchmarks" / "peers"
_COMMON: Final = PEERS / "common"
_ENVIRONMENTS: Final = CACHE / "envs"


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, whether it exists or not."""
    return _ENVIRONMENTS / peer / "bin" / "python"


def packages_of(peer: str) -> Path:
    """The folder of a peer's packages.

    Raises:
        RuntimeError: it has no environment.
    """
    found = sorted((_ENVIRONMENTS / peer / "lib").glob("python3.*/site-packages"))
    if not found:
        raise RuntimeError(f"{peer} has no environment")
    return found[0]


def make_environment(peer: str) -> None:
    """Install a peer, unless what its requirements name is installed already.

    Raises:
        CalledProcessError: it cannot be installed.
    """
    requirements = PEERS / peer / "requirements.txt"
    folder = _ENVIRONMENTS / peer
    stamp = folder / "requirements.txt"
    if stamp.is_file() and stamp.read_bytes() == requirements.read_bytes():
        return
    print(f"making {folder.relative_to(ROOT)} from {requirements.relative_to(ROOT)}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    install = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-cache-dir", "-r"]
    subprocess.run([str(python_of(peer)), *install, str(requirements)], check=True)
    # Every peer runs the model with the same few lines, which Triton's own Python would not find by PYTHONPATH.
    (packages_of(peer) / "leadtime_benchmarks.pth").write_text(f"{_COMMON}\n")
    if peer == "triton":
        _choose_stub()
    shutil.copy(requirements, stamp)


def versions_of(peer: str) -> dict[str, str]:
    """The versions of the packages that a peer's requirements name, as they are installed."""
    names = [line.split("==")[0].split("[")[0] for line in (PEERS / peer / "requirements.txt").read_text().split()]
    code = f"from importlib.metadata import version\nfor name in {names}: print(name, version(name))"
    done = subprocess.run([str(python_of(peer)), "-c", code], capture_output=True, text=True, check=True)
    return dict(line.split() for line in done.stdout.splitlines())


def _choose_stub() -> None:
    """Put the stub for this Python where Triton's Python backend looks for it."""
    server = packages_of("triton") / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = "triton_python_backend_stub"
    shutil.copy(server / "python_backend_stubs" / version / stub, server / "backends" / "python" / stub)
