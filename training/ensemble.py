"""Several networks as one: each reads the same window, and their forecasts are combined at each step.

What a window is measured by, its history and its seasons are the same for all members of one configuration. They are
computed, and carried in the state row, once; only the recurrent states of each member stand side by side. The service
feeds the combined forecast back, so that all members go on from the same future: it need not know that they are many.

Beside the networks there may be a linear autoregression of the whole horizon, which errs differently from all of them:
half of the forecast is then its own.

Forecasts are combined in the units that the members were fitted in, which for logarithms makes their mean a geometric
one.
"""

from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from training.config import Combine
from training.measure import Measure
from training.model import Carried, Forecaster, Operations, Reading

Weights = Sequence[npt.NDArray[np.float32]]
Kernel = npt.NDArray[np.float32]
"""(steps - 1, horizon): how much of its difference to the last step each one before adds to each one ahead."""


@keras.saving.register_keras_serializable(package="leadtime")
class Ensemble(Forecaster):
    """Networks of one configuration and different weights, which forecast together.

    Args:
        members: how many they are.
        combine: whether the mean or the median of their forecasts is given, and fed back.
        autoregression: how many steps the linear autoregression sees; 0 for none.
        given: what each of them is made of; see `Forecaster`.
    """

    def __init__(self, *, members: int, combine: Combine, autoregression: int = 0, **given: Any) -> None:
        self._count = members  # before the base class, which makes the layers
        self.combine = combine
        self.autoregression = autoregression
        super().__init__(**given)
        self.memory = max(self.memory, autoregression)

    @classmethod
    def of(
        cls, network: Forecaster, weights: Sequence[Weights], combine: Combine, regression: Kernel | None = None
    ) -> Self:
        """The ensemble of networks that are like one but have weights of their own.

        `regression` are the weights of the linear autoregression beside them, as `training.autoregression` fits them.
        """
        made = cls(
            members=len(weights),
            combine=combine,
            autoregression=0 if regression is None else len(regression) + 1,
            network=network.network,
            features=network.features,
            lags=network.lags,
            horizon=network.horizon,
            known=network.known,
        )
        for member, held in zip(made.members, weights, strict=True):
            member.set_weights(list(held))
        if made.regression is not None:
            made.regression.set_weights([regression])
        return made

    def build(self, input_shape: Any = None) -> None:
        if self.regression is not None:
            self.regression.build((None, None, self.autoregression - 1))
        self.built = True  # the members have built themselves

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "members": self._count,
            "combine": self.combine,
            "autoregression": self.autoregression,
        }

    def _make_layers(self) -> None:
        self.members = [
            Forecaster(
                network=self.network,
                features=self.features,
                lags=self.lags,
                horizon=self.horizon,
                known=self.known,
            )
            for _ in range(self._count)
        ]
        self.regression = layers.Dense(self.horizon, use_bias=False, name="regress") if self.autoregression else None

    def _hidden(self) -> list[list[int]]:
        return [widths for member in self.members for widths in member._hidden()]

    def _stack(self, ops: Operations, inputs: Any, before: list[list[Any]] | None) -> tuple[Any, Any, list[list[Any]]]:
        """Each member's layers over the same inputs: lists of their sequences and ends, and all their states."""
        flows, ends, hidden = [], [], []
        each = 0 if before is None else len(before) // self._count
        for index, member in enumerate(self.members):
            own = None if before is None else before[index * each : (index + 1) * each]
            flow, end, after = member._stack(ops, inputs, own)
            flows.append(flow)
            ends.append(end)
            hidden += after
        return flows, ends, hidden

    def _next(self, ops: Operations, reading: Reading, measure: Measure, *, at_end: bool = False) -> Any:
        each = [
            member._next(ops, own, measure, at_end=at_end)
            for member, own in zip(self.members, self._own(reading), strict=True)
        ]
        return self._combined(ops, ops.concatenate(each, axis=0)) if at_end else self._together(ops, each)

    def _unfold(self, ops: Operations, reading: Reading, carried: Carried) -> Any:
        each = [member._unfold(ops, own, carried) for member, own in zip(self.members, self._own(reading), strict=True)]
        together = self._together(ops, each)
        if self.regression is None:
            return together
        last = ops.steps(reading.centred, -1, None)
        past = ops.transpose(ops.steps(reading.history, -self.autoregression, -1) - last, (2, 1, 0))
        linear = ops.transpose(ops.dense([self.regression], past), (2, 1, 0)) + last
        return (together + linear) * 0.5

    def _own(self, reading: Reading) -> list[Reading]:
        """What each member made of a sequence."""
        return [reading._replace(flow=flow, end=end) for flow, end in zip(reading.flow, reading.end, strict=True)]

    def _together(self, ops: Operations, each: Sequence[Any]) -> Any:
        """Combine the members' sequences of forecasts, step by step."""
        stacked = ops.concatenate([ops.unsqueeze(forecasts, 0) for forecasts in each], axis=0)
        return ops.squeeze(self._combined(ops, stacked), 0)

    def _combined(self, ops: Operations, each: Any) -> Any:
        """The forecasts (members, …) as one (1, …)."""
        return ops.mean(each, 0) if self.combine == "mean" else ops.median(each, self._count)
