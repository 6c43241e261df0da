"""The kinds of chaos, in the order in which they are run and told."""

from types import ModuleType
from typing import Final

from chaos import clients, fuzz, kill, reloads, restarts, soak

KINDS: Final[dict[str, ModuleType]] = {
    "reloads": reloads,
    "restarts": restarts,
    "kill": kill,
    "clients": clients,
    "fuzz": fuzz,
    "soak": soak,
}
"""Each has a `TITLE`, and `run`, which takes `Options` and returns what `chaos.results` keeps."""
