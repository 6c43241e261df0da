"""Ray Serve: one replica on one core, answering one by one and in batches."""

import os
import signal
import sys

import numpy as np
import ray
from network import Network
from ray import serve


@serve.deployment(num_replicas=1, max_ongoing_requests=128, ray_actor_options={"num_cpus": 0})
class Forecaster:
    def __init__(self):
        self.network = Network()

    async def __call__(self, request):
        if request.method == "GET":
            return "ready"
        question = await request.json()
        window = np.array(question["window"], np.float32)[:, None]
        if question.get("batched"):
            return {"forecast": await self.batched((window, question.get("horizon", 1)))}
        return {"forecast": self.network.slide(window[None], question.get("horizon", 1))[0].tolist()}

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0)
    async def batched(self, questions):
        windows = np.stack([window for window, _ in questions])
        return self.network.slide(windows, max(horizon for _, horizon in questions)).tolist()


if __name__ == "__main__":
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100_000_000,
        runtime_env={"env_vars": {"BENCH_MODEL": os.environ["BENCH_MODEL"]}},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])}, proxy_location="HeadOnly")
    serve.run(Forecaster.bind(), route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
