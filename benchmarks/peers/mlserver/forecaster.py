"""MLServer: a runtime of our own, without its inference pool, which one core has no use for."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
from network import Network


class Forecaster(MLModel):
    async def load(self):
        self.network = Network()
        return True

    async def predict(self, payload):
        windows = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        horizon = int(payload.inputs[1].data[0]) if len(payload.inputs) > 1 else 1
        steps = self.network.slide(windows, horizon)
        output = NumpyCodec.encode_output("forecast", steps)
        return InferenceResponse(model_name=self.name, outputs=[output])
