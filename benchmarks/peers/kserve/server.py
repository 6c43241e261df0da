"""KServe's Python server, one worker: its v1 protocol, with the horizon among the parameters."""

import sys

import kserve
import numpy as np
from network import Network


class Forecaster(kserve.Model):
    def __init__(self, name):
        super().__init__(name)
        self.network = Network()
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        windows = np.array(payload["instances"], np.float32)[:, :, None]
        return {"predictions": self.network.slide(windows, payload.get("horizon", 1)).tolist()}


if __name__ == "__main__":
    kserve.ModelServer(
        http_port=int(sys.argv[1]),
        workers=1,
        enable_grpc=False,
        enable_docs_url=False,
        enable_latency_logging=False,
        access_log_format=None,
    ).start([Forecaster("forecaster")])
