"""The model as every peer runs it, in its own environment: one onnxruntime session, one thread, no spinning.

A window is slid for a forecast of several steps, the way iterative forecasts are usually written. `BENCH_MODEL` names
the file.
"""

import os

import numpy as np
import onnxruntime


class Network:
    """One open model."""

    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"]
        )
        sizes = {tensor.name: tensor.shape[1] for tensor in self._session.get_inputs()}
        self._state_size = sizes.get("state")
        self._fresh = {}

    def next_step(self, windows):
        """The step after each window: (batch, time, 1) to (batch, 1)."""
        return self._session.run(["forecast"], self._feed(windows))[0]

    def slide(self, windows, horizon):
        """The steps after each window, (batch, time, 1) to (batch, horizon), the whole window run again for each."""
        steps = np.empty((len(windows), horizon), np.float32)
        for lead in range(horizon):
            step = self.next_step(windows)
            steps[:, lead] = step[:, 0]
            windows = np.concatenate((windows[:, 1:], step[:, None]), axis=1)
        return steps

    def carry(self, windows, horizon):
        """The steps after each window, with the state carried where the model has one."""
        if self._state_size is None:
            return self.slide(windows, horizon)
        steps = np.empty((len(windows), horizon), np.float32)
        feed = self._feed(windows)
        for lead in range(horizon):
            step, state = self._session.run(["forecast", "next_state"], feed)
            steps[:, lead] = step[:, 0]
            feed = {"values": step[:, None], "state": state}
        return steps

    def _feed(self, windows):
        if self._state_size is None:
            return {"values": windows}
        rows = len(windows)
        if rows not in self._fresh:
            self._fresh[rows] = np.zeros((rows, self._state_size), np.float32)
        return {"values": windows, "state": self._fresh[rows]}
