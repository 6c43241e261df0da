"""LitServe, one worker; `BATCH` above 1 turns its batching on. The horizon is part of the question."""

import os
import sys

import litserve
import numpy as np
from network import Network

BATCH = int(os.environ.get("BATCH", "1"))


class Forecaster(litserve.LitAPI):
    def setup(self, device):
        self.network = Network()

    def decode_request(self, request):
        return np.array(request["window"], np.float32)[:, None], request.get("horizon", 1)

    def batch(self, inputs):
        return np.stack([window for window, _ in inputs]), max(horizon for _, horizon in inputs)

    def predict(self, question):
        windows, horizon = question if BATCH > 1 else (question[0][None], question[1])
        steps = self.network.slide(windows, horizon)
        return steps if BATCH > 1 else steps[0]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"forecast": output.tolist()}


if __name__ == "__main__":
    api = Forecaster(max_batch_size=BATCH, batch_timeout=0.005 if BATCH > 1 else 0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
