"""BentoML, one worker, answering in three ways: on a thread, on the loop, and in adaptive batches."""

import bentoml
import numpy as np
from network import Network


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Forecaster:
    def __init__(self):
        self.network = Network()

    @bentoml.api
    def plain(self, window: list[float], horizon: int = 1) -> list[float]:
        return self._forecast(window, horizon)

    @bentoml.api
    async def loop(self, window: list[float], horizon: int = 1) -> list[float]:
        return self._forecast(window, horizon)

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=10_000)
    def batched(self, windows: np.ndarray) -> np.ndarray:
        return self.network.next_step(np.asarray(windows, np.float32)[:, :, None])

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=10_000)
    def batched_multi_step(self, windows: np.ndarray) -> np.ndarray:
        return self.network.slide(np.asarray(windows, np.float32)[:, :, None], 24)

    def _forecast(self, window, horizon):
        return self.network.slide(np.array(window, np.float32).reshape(1, -1, 1), horizon)[0].tolist()
