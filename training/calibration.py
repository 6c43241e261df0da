"""Calibration: the errors that the artifact carries, by which the service tells how far off a forecast may be.

They are those of forecasts from the validation part, by the artifact itself. Of the training part, which the network
has seen, they would be too small. Those of the test part stay out, so that how often intervals held can be told from
data that nothing was made of. The validation part has only said when to stop fitting.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from service.artifact import ErrorTable
from service.engine import Engine
from service.intervals import errors_of
from training.panel import Panel, known_in
from training.parts import Split

_MOST_ERRORS: Final = 400  # of each feature and lead time: enough for a level of 99.5 %
_LARGEST_TABLE: Final = 50_000  # numbers in all, of some seven bytes
_FEWEST_ERRORS: Final = 40  # enough for a level of 95 %, also where the table is larger for it
_DIGITS: Final = 4  # of an error kept
_ROWS_TOGETHER: Final = 64
_SEED: Final = 0

Errors = npt.NDArray[np.float64]


def error_table(engine: Engine, panel: Panel, split: Split) -> ErrorTable | None:
    """Forecast from origins of each series' validation part, and keep the errors over each window's scale, as paths.

    Every forecast's whole horizon lies inside the validation part; its window may look back before it. Of all origins
    of all series some are drawn, always the same. None where the artifact tells no scale, or only windows without any.

    Raises:
        ArtifactError: the artifact's graph fails.
    """
    origins = _drawn(_all_origins(split), split.horizon * len(panel.features))
    errors = [
        part
        for start in range(0, len(origins), _ROWS_TOGETHER)
        if (part := _errors(engine, panel, origins[start : start + _ROWS_TOGETHER], split.horizon)) is not None
    ]
    kept = np.concatenate(errors) if errors else np.empty((0, split.horizon, len(panel.features)))
    if not len(kept):
        return None
    return ErrorTable(
        origins=len(kept),
        errors=tuple(
            tuple(tuple(float(f"{error:.{_DIGITS}g}") for error in lead) for lead in feature) for feature in kept.T
        ),
        paths=True,
    )


def _all_origins(split: Split) -> npt.NDArray[np.int64]:
    """Series and step of each origin: (origins, 2)."""
    found = [
        np.stack((np.full(len(steps), series), steps), axis=1)
        for series, part in enumerate(split.boundaries)
        if len(steps := np.arange(part.train_end - 1, part.validation_end - split.horizon))
    ]
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)


def _drawn(origins: npt.NDArray[np.int64], numbers_each: int) -> npt.NDArray[np.int64]:
    """As many of the origins as are kept. Drawn at random, they are in step with no season."""
    most = min(_MOST_ERRORS, max(_FEWEST_ERRORS, _LARGEST_TABLE // numbers_each))
    if len(origins) <= most:
        return origins
    return origins[np.sort(np.random.default_rng(_SEED).choice(len(origins), most, replace=False))]


def _errors(engine: Engine, panel: Panel, origins: npt.NDArray[np.int64], horizon: int) -> Errors | None:
    """Errors over each window's scale, (origins, horizon, features), without those of windows that have none."""
    values = [panel.series[series].values for series, _ in origins]
    steps = [int(step) for _, step in origins]
    length = min(engine.context_length, min(steps) + 1)
    windows = np.stack([one[step + 1 - length : step + 1] for one, step in zip(values, steps, strict=True)])
    actual = np.stack([one[step + 1 : step + 1 + horizon] for one, step in zip(values, steps, strict=True)])
    windows = windows.astype(np.float32)
    following = None
    if engine.known:
        spans = [slice(step + 2 - length, step + 1 + horizon) for step in steps]
        found = known_in([(panel.series[at], span) for (at, _), span in zip(origins, spans, strict=True)])
        following = found.reshape(len(origins), -1, engine.known)
    scale = engine.run(windows, known=None if following is None else following[:, :length]).scale
    if scale is None:
        return None
    told = (scale > 0).all(axis=1)
    forecasts = engine.forecast(windows[told], horizon, None if following is None else following[told])
    errors = errors_of(actual[told], forecasts, logarithms=engine.metadata.logarithms)
    return errors / scale[told, None].astype(np.float64)
