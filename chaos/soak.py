"""Mixed load for a long time, while models come and go."""

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from chaos.checks import Check, Options, count, result
from chaos.load import Asked, Load, percentiles
from chaos.service import Instance
from chaos.versions import QUESTIONS, WINDOW, Versions

TITLE: Final = "Mixed load for a long time"

_SHARE_OF_RATE: Final = 0.25
_RELOAD_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 1.0
_SETTLING: Final = 0.25
"""The share of the time that is left out: caches fill."""
_BLOCKS: Final = 12
_DESCRIPTORS: Final = 16
_ERRORS_ALLOWED: Final = 3.0
_SLOPE_UNNOTICED: Final = 0.05  # MB a minute: 70 MB a day

_OTHERS: Final = (
    Asked("/forecast/multi-step", json.dumps({"windows": [WINDOW, WINDOW[:9]] * 8, "horizon": 24}).encode()),
    Asked("/forecast/multi-step", json.dumps({"window": WINDOW * 20, "horizon": 2, "levels": [80]}).encode()),
    Asked("/forecast/multi-step", json.dumps({"window": WINDOW * 20, "horizon": 2, "samples": 50, "seed": 7}).encode()),
    Asked("/forecast", json.dumps({"window": WINDOW, "origin": "2024-05-01", "frequency": "D"}).encode()),
    Asked("/forecast", json.dumps({"window": [1, "2"]}).encode(), status=422),
    Asked("/forecast", b"{" * 500, status=400),
    Asked("/forecast", json.dumps({"window": WINDOW, "model": "nobody"}).encode(), status=404),
    Asked("/forecast", b"window=1", status=415, content_type="text/plain"),
)


def run(options: Options) -> dict[str, Any]:
    """Ask good and bad questions, put a version there every few seconds, and look at memory and descriptors."""
    seconds: list[float] = []
    megabytes: list[float] = []
    descriptors: list[int] = []
    reloads = 1
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        versions = Versions(models)
        questions = (*QUESTIONS, *_OTHERS)
        with (
            Instance(models) as instance,
            Load(instance.port, questions, options.rate * _SHARE_OF_RATE, patience=options.patience) as load,
        ):
            begin = reloaded = time.monotonic()
            while (now := time.monotonic()) - begin < options.minutes * 60:
                seconds.append(now - begin)
                megabytes.append(instance.memory())
                descriptors.append(instance.descriptors())
                if now - reloaded > _RELOAD_SECONDS:
                    reloaded, reloads = now, reloads + 1
                    versions.put(reloads)
                    _remove_old(models, reloads)
                time.sleep(_LOOK_SECONDS)
            answered = load.finish()
            tracebacks = instance.tracebacks
    slope, error = slope_of(seconds, megabytes)
    flat = abs(slope) <= max(_ERRORS_ALLOWED * error, _SLOPE_UNNOTICED) or slope < 0
    first = int(len(descriptors) * _SETTLING)
    return result(
        [
            count("failed requests", len(answered.failures)),
            Check("growth of resident memory", f"{slope:+.3f} ± {error:.3f} MB a minute", "within its noise", flat),
            count(
                "more open descriptors at the end",
                max(0, descriptors[-1] - max(descriptors[: first + 1])),
                _DESCRIPTORS,
            ),
            count("tracebacks", tracebacks),
        ],
        minutes=options.minutes,
        rate=options.rate * _SHARE_OF_RATE,
        requests=answered.asked,
        reloads=reloads - 1,
        megabytes={"first": megabytes[0], "last": megabytes[-1], "most": max(megabytes)},
        slope=slope,
        standard_error=error,
        latency=percentiles(answered.milliseconds()),
        failures=[failure.reason for failure in answered.failures[:10]],
    )


def slope_of(seconds: Sequence[float], megabytes: Sequence[float]) -> tuple[float, float]:
    """The megabytes a minute by which memory grows once it has settled, and their standard error.

    Memory of one second is much like that of the next, so the line goes through the means of blocks.
    """
    first = int(len(seconds) * _SETTLING)
    size = max(1, (len(seconds) - first) // _BLOCKS)
    starts = range(first, len(seconds) - size + 1, size)
    minutes = [statistics.fmean(seconds[start : start + size]) / 60 for start in starts]
    means = [statistics.fmean(megabytes[start : start + size]) for start in starts]
    if len(minutes) < 3:
        return 0.0, float("inf")
    line = statistics.linear_regression(minutes, means)
    middle = statistics.fmean(minutes)
    spread = sum((at - middle) ** 2 for at in minutes)
    residuals = (have - line.slope * at - line.intercept for at, have in zip(minutes, means, strict=True))
    return line.slope, (sum(residual**2 for residual in residuals) / (len(minutes) - 2) / spread) ** 0.5


def _remove_old(models: Path, newest: int) -> None:
    """Take away the folder of a version that is not served any more."""
    old = models / "default" / str(newest - 5)
    if old.is_dir():
        shutil.rmtree(old)
