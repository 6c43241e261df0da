"""A linear autoregression of a whole horizon, fitted by least squares.

Each step ahead is the last value and a weighted sum of how the steps before it differ from it (NLinear: Zeng, Chen,
Zhang and Xu 2023, arXiv:2205.13504). One set of weights serves all series and features, each divided by its own
spread. A penalty keeps the weights small (ridge: Hoerl and Kennard 1970): the one that does best on the validation
parts.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from training.panel import Panel
from training.parts import Split

Floats = npt.NDArray[np.float64]
Range = tuple[int, int]

# Shares of what the inputs' squares sum up to.
_PENALTIES: Final = tuple(10.0**power for power in range(-9, 1))
_MOST_WINDOWS: Final = 200_000
_BLOCK: Final = 4096


def fit_autoregression(
    panel: Panel, split: Split, steps: int, *, logarithms: bool, closing: bool = False
) -> npt.NDArray[np.float32]:
    """Fit the weights of a linear autoregression that sees so many steps, and forecasts the split's horizon.

    Args:
        panel: the series, each longer in training than steps and horizon.
        split: their parts; the weights are fitted on training, and the penalty is chosen on validation.
        steps: how many it sees, the last one included; at least 2.
        logarithms: whether it is fitted on and forecasts logarithms, of series that are above zero.
        closing: whether the weights are then fitted on training and validation together.

    Returns:
        (steps - 1, horizon): how much of its difference to the last step each one before adds to each one ahead.
    """
    columns = [
        _scaled(column, part.train_end, logarithms=logarithms)
        for one, part in zip(panel.series, split.boundaries, strict=True)
        for column in one.values.T
    ]
    parts = [part for part in split.boundaries for _ in panel.features]
    training = [(0, part.train_end) for part in parts]
    fitted_on = _products(columns, training, steps, split.horizon)
    judged_on = _products(
        columns, [(part.train_end - steps, part.validation_end) for part in parts], steps, split.horizon
    )
    penalty = min(_PENALTIES, key=lambda share: _error(_weights(fitted_on, share), judged_on))
    if closing:
        fitted_on = _products(columns, [(0, part.validation_end) for part in parts], steps, split.horizon)
    return _weights(fitted_on, penalty).astype(np.float32)


class _Products(NamedTuple):
    """Sums of products over windows, which are all that least squares needs."""

    inputs: Floats  # (steps - 1, steps - 1)
    both: Floats  # (steps - 1, horizon)
    outputs: float


def _scaled(column: Floats, train_end: int, *, logarithms: bool) -> Floats:
    values = np.log(column) if logarithms else column
    return values / (values[:train_end].std() or 1.0)


def _products(columns: Sequence[Floats], ranges: Sequence[Range], steps: int, horizon: int) -> _Products:
    """Over the windows of `steps` and the horizon behind them that lie in the range of each column."""
    views = [
        sliding_window_view(column[first:end], steps + horizon)
        for column, (first, end) in zip(columns, ranges, strict=True)
    ]
    stride = -(-sum(map(len, views)) // _MOST_WINDOWS)
    inputs, both, outputs = np.zeros((steps - 1, steps - 1)), np.zeros((steps - 1, horizon)), 0.0
    for view in views:
        for first in range(0, len(view), _BLOCK * stride):
            windows = view[first : first + _BLOCK * stride : stride]
            differences = windows - windows[:, steps - 1 : steps]
            past, ahead = differences[:, : steps - 1], differences[:, steps:]
            inputs += past.T @ past
            both += past.T @ ahead
            outputs += float((ahead * ahead).sum())
    return _Products(inputs, both, outputs)


def _weights(products: _Products, share: float) -> Floats:
    size = len(products.inputs)
    penalty = share * products.inputs.trace() / size * np.eye(size)
    return np.asarray(np.linalg.lstsq(products.inputs + penalty, products.both, rcond=None)[0])


def _error(weights: Floats, products: _Products) -> float:
    """The sum of squared errors."""
    return float(
        np.einsum("ij,ik,kj", weights, products.inputs, weights)
        - 2 * (weights * products.both).sum()
        + products.outputs
    )
