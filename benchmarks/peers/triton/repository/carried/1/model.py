"""Triton's Python backend: the requests of a dynamic batch together, the state carried for each step."""

import numpy as np
import triton_python_backend_utils as triton
from network import Network


class TritonPythonModel:
    def initialize(self, args):
        self.network = Network()

    def execute(self, requests):
        windows = [triton.get_input_tensor_by_name(request, "values").as_numpy() for request in requests]
        horizons = [int(triton.get_input_tensor_by_name(request, "horizon").as_numpy()[0, 0]) for request in requests]
        steps = self.network.carry(np.concatenate(windows) if len(windows) > 1 else windows[0], max(horizons))
        answers, start = [], 0
        for window, horizon in zip(windows, horizons, strict=True):
            part = np.ascontiguousarray(steps[start : start + len(window), :horizon])
            answers.append(triton.InferenceResponse([triton.Tensor("forecast", part)]))
            start += len(window)
        return answers
