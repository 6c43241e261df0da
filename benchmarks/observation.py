"""What watching costs: requests a second with metrics, logs and keys on, beside a service with all of them off."""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.questions import HORIZON, WINDOW, artifact, forecast, to_service
from benchmarks.rates import Contestant, Place, Servers, measure, ratio, summary
from benchmarks.servers import Server, service
from service.engine import Engine
from service.keys import add_key

ON: Final = "everything on"
OFF: Final = "everything off"
_CONNECTIONS: Final = (16, 64)
_SHARE: Final = "0.001"


def measured(place: Place, *, rounds: int, seconds: int, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Ask both in turns for one step and for several.

    Returns:
        By steps and connections the rates of both, and the median ratio of on to off.
    """
    engine = Engine.open(artifact("uni"))
    found: dict[str, Any] = {"rounds": rounds, "seconds": seconds, "share_logged": float(_SHARE), "loads": {}}
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.toml"
        secret = add_key(keys, "load", ["forecast"])
        starts = {ON: partial(_service, place, _on(keys)), OFF: partial(_service, place, _off())}
        with Servers(starts) as servers:
            for steps in (1, HORIZON):
                question, wanted = to_service(WINDOW, steps), forecast(engine, WINDOW, steps)
                with_key = replace(question, headers={**question.headers, "Authorization": f"Bearer {secret}"})
                contestants = [Contestant(ON, ON, with_key, wanted), Contestant(OFF, OFF, question, wanted)]
                rates = measure(
                    servers,
                    contestants,
                    place,
                    connections=_CONNECTIONS,
                    rounds=rounds,
                    seconds=seconds,
                    tell=tell,
                )
                for connections, loads in rates.items():
                    about: dict[str, Any] = dict(summary(loads))
                    about["ratio"] = ratio(about[ON]["rates"], about[OFF]["rates"])
                    tell(f"{steps} steps, {connections} connections: {about['ratio']:.3f} × of everything off")
                    found["loads"].setdefault(str(steps), {})[str(connections)] = about
    return found


def _on(keys: Path) -> Mapping[str, str]:
    return {
        "LEADTIME_KEYS": str(keys),
        "LEADTIME_ACCESS_LOG": _SHARE,
        "LEADTIME_LOG_FORMAT": "json",
        "LEADTIME_LOG_LEVEL": "info",
    }


def _off() -> Mapping[str, str]:
    return {"LEADTIME_REQUEST_METRICS": "off"}


def _service(place: Place, settings: Mapping[str, str]) -> AbstractContextManager[Server]:
    return service("uni", place.server, settings=settings)
