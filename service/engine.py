"""The engine: one artifact opened with onnxruntime, ready to run prefill and decode steps."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from service.artifact import (
    FORECAST,
    KNOWN,
    NEXT_STATE,
    SCALE,
    STATE,
    VALUES,
    Metadata,
    Tensor,
    Trial,
    check_graph,
    read_metadata,
)
from service.calendar import calendar_of
from service.drift import Drift
from service.errors import ArtifactError
from service.onnx_file import EXTERNAL, NOT_STANDARD, UNREADABLE, check_stands_alone
from service.pace import Pace
from service.window import Values, slide

# It starts a thread when it is loaded, which processes that are to be copied must not have (`service.forkserver`): it
# is loaded with the first model.
if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg, SessionOptions

State = Values

# Rows that `Engine.forecast` runs together: more would gain nothing per row, and take more memory.
_ROWS_TOGETHER: Final = 32

# How far a trial forecast may be from the stored one: shares of the window's range and of its largest number. Other
# processors round otherwise, and a forecast that is fed back carries that on.
_OF_RANGE: Final = 1e-3
_OF_SIZE: Final = 1e-5

# A path that cannot exist, because its parent is a file.
_NOWHERE: Final = str(Path(__file__))

# What onnxruntime says of a file that it cannot load, and the same in plain words. Its own messages are kept from
# readers: they name paths and C++ functions.
_LOADING_FAULTS: Final = (
    (r"protobuf parsing failed|No graph was found", UNREADABLE),
    (r"xternal data|xternal initializer|model_path must not be empty", EXTERNAL),
    (r"is not a registered function/op|No Op registered|No opset import for domain", NOT_STANDARD),
    (r"IR version|opset version", "it is of a newer ONNX version than {runtime} reads: export it with an older one"),
)


class Step(NamedTuple):
    """What one run gives, each row apart."""

    forecast: Values
    """(batch, features): the next step, raw units."""
    next_state: State | None
    """(batch, state_size), to pass with the next value; None for a model whose window is slid."""
    scale: Values | None
    """(batch, features): the window's scale; None where the graph does not tell it."""


class Engine:
    """An artifact that has been checked and tried out. Its methods may be called from several threads at once."""

    def __init__(self, metadata: Metadata, digest: str, session: "InferenceSession") -> None:
        """Wrap a session whose graph is that of `metadata`; use `Engine.open`, which makes sure of it."""
        self.metadata = metadata
        self.digest = digest
        self.pace = Pace()
        """How long its runs take; whoever times them lets it learn."""
        self.known = metadata.known
        """Numbers that are known of each step beforehand; 0 = none."""
        self.drift: Drift | None = None
        """What looks at windows before their first run; whoever counts sets it."""
        self._session = session
        present = {output.name for output in session.get_outputs()}
        self._outputs = [name for name in (FORECAST, NEXT_STATE, SCALE) if name in present]

    @classmethod
    def open(cls, path: Path) -> "Engine":
        """Read, check and try out an artifact. The file is read once; it may be replaced or removed afterwards.

        Raises:
            ArtifactError: the file cannot be read, or as `load` says.
        """
        return cls.load(read_artifact(path))

    @classmethod
    def load(cls, content: bytes) -> "Engine":
        """Check and try out an artifact, of whose file this is the content.

        Raises:
            ArtifactError: it is not ONNX, names anything beside itself, breaks the contract, does not run, or does not
                repeat the trial forecast that is stored in it.
        """
        check_stands_alone(content)
        session = _load(content)
        try:
            metadata = read_metadata(session.get_modelmeta().custom_metadata_map)
            check_graph(metadata, _tensors(session.get_inputs()), _tensors(session.get_outputs()))
        except UnicodeDecodeError as error:
            raise ArtifactError("its metadata, or a name in its graph, is not text in UTF-8") from error
        engine = cls(metadata, digest_of(content), session)
        try:
            _try_out(engine)
            if metadata.trial is not None:
                _repeat(engine, metadata.trial)
        except MemoryError as error:
            raise ArtifactError("it needs more memory than there is") from error
        return engine

    @property
    def context_length(self) -> int:
        """Steps of a window that are used; of longer ones, the end."""
        return self.metadata.context_length

    @property
    def minimum_window(self) -> int:
        """The shortest window accepted, in steps."""
        return self.metadata.minimum_window

    @property
    def features(self) -> int:
        """Numbers per step."""
        return len(self.metadata.features)

    @property
    def state_size(self) -> int:
        """Floats carried per sequence; 0 = the window is slid instead."""
        return self.metadata.state_size

    def run(self, values: Values, state: State | None = None, known: Values | None = None) -> Step:
        """Run the graph once: prefill with a window, or decode with one step and the state carried to it.

        `values` is (batch, time, features) and `state` (batch, state_size); None stands for a fresh state, and is the
        only state of a model whose window is slid. `known`, (batch, time, known), is for a model that takes such, and
        holds what is known of the step after each of `values`.

        Raises:
            ArtifactError: the graph fails on these shapes.
        """
        feed = {VALUES: values}
        if self.state_size:
            feed[STATE] = np.zeros((len(values), self.state_size), np.float32) if state is None else state
        if known is not None:
            feed[KNOWN] = known
        try:
            outputs = self._session.run(self._outputs, feed)
        # onnxruntime's errors share no base class of their own.
        except Exception as error:
            kind = type(error).__name__
            raise ArtifactError(f"its graph fails on values of shape {values.shape} ({kind})") from error
        if len(outputs) == len(Step._fields):
            return Step(*outputs)
        found = dict(zip(self._outputs, outputs, strict=True))
        return Step(found[FORECAST], found.get(NEXT_STATE), found.get(SCALE))

    def forecast(self, windows: Values, horizon: int, known: Values | None = None) -> Values:
        """Forecast iteratively from windows of equal length: (batch, time, features) to (batch, horizon, features).

        `known`, (batch, time + horizon - 1, known), is for a model that takes such, and tells of the step after each
        of the windows' steps, and so on to the horizon.

        Raises:
            ValueError: the windows are shorter than `minimum_window`, the horizon is below 1, or `known` has another
                shape.
            ArtifactError: the graph fails.
        """
        if windows.shape[1] < self.minimum_window:
            raise ValueError(f"windows of {windows.shape[1]} steps; at least {self.minimum_window} are needed")
        if horizon < 1:
            raise ValueError("horizon must be at least 1")
        wanted = (len(windows), windows.shape[1] + horizon - 1, self.known) if self.known else None
        if (None if known is None else known.shape) != wanted:
            raise ValueError(f"what is known must be of shape {wanted}")
        forecasts = np.empty((len(windows), horizon, self.features), np.float32)
        for start in range(0, len(windows), _ROWS_TOGETHER):
            rows = slice(start, start + _ROWS_TOGETHER)
            used = min(windows.shape[1], self.context_length)
            part = None if known is None else np.ascontiguousarray(known[rows, -(used + horizon - 1) :], np.float32)
            self._roll(windows[rows, -used:], part, forecasts[rows])
        return forecasts

    def _roll(self, windows: Values, known: Values | None, forecasts: Values) -> None:
        """Fill `forecasts` (batch, horizon, features), each step from the one before it."""
        values, state = np.ascontiguousarray(windows, np.float32), None
        read = values.shape[1]
        for lead in range(forecasts.shape[1]):
            told = None if known is None else known[:, read - values.shape[1] : read]
            forecast, state, _ = self.run(values, state, told)
            forecasts[:, lead] = forecast
            values = slide(values, forecast, self.context_length) if state is None else forecast[:, None]
            read += 1


def digest_of(content: bytes) -> str:
    """The digest by which artifacts are told apart."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def read_artifact(path: Path) -> bytes:
    """Read the file of an artifact.

    Raises:
        ArtifactError: it cannot be read, or is empty.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"it cannot be read: {error.strerror}") from error
    if not content:
        raise ArtifactError("it is empty")
    return content


def _load(content: bytes) -> "InferenceSession":
    from onnxruntime import InferenceSession, __version__

    try:
        return InferenceSession(content, _session_options(), providers=["CPUExecutionProvider"])
    except Exception as error:
        for pattern, fault in _LOADING_FAULTS:
            if re.search(pattern, str(error)):
                raise ArtifactError(fault.format(runtime=f"onnxruntime {__version__}")) from error
        raise ArtifactError(f"onnxruntime cannot load it ({type(error).__name__})") from error


def _session_options() -> "SessionOptions":
    from onnxruntime import ExecutionMode, SessionOptions

    options = SessionOptions()
    # A forecast's operators are far too small to share among threads; processes spread the work over cores instead.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A plan of memory is kept for every shape ever seen, and windows come in any length and batch: it would only grow.
    options.enable_mem_pattern = False
    # The arena keeps the memory of the largest run for good. Runs are short of allocations as it is: malloc serves.
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    # A model from bytes may still name files beside the working directory as its weights: let them be found nowhere.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NOWHERE)
    return options


def _tensors(arguments: Sequence["NodeArg"]) -> list[Tensor]:
    return [Tensor(argument.name, _dtype(argument.type), _shape(argument.shape)) for argument in arguments]


def _dtype(name: str) -> str:
    """Turn onnxruntime's name of a type into numpy's, where it has one."""
    inner = re.fullmatch(r"tensor\((\w+)\)", name)
    if inner is None:
        return name
    return {"float": "float32", "double": "float64", "float16": "float16"}.get(inner[1], inner[1])


def _shape(sizes: Sequence[int | str | None]) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in sizes)


def _try_out(engine: Engine) -> None:
    """Run a rising line through the graph, to see that it runs, keeps its shapes, and keeps rows apart."""
    for length in sorted({engine.minimum_window, engine.context_length}):
        line = np.linspace(1, 2, 2 * length * engine.features, dtype=np.float32).reshape(2, length, engine.features)
        known = _example_of_known(engine, length)
        both = _tried(engine, line, None, known)
        alone = _tried(engine, line[1:], None, None if known is None else known[1:])
        if not np.allclose(both.forecast[1:], alone.forecast, rtol=1e-3, atol=1e-4):
            raise ArtifactError("its forecast for one window depends on the other windows of the batch")
        if engine.state_size:
            _tried(engine, both.forecast[:, None], both.next_state, None if known is None else known[:, -1:])
    begin = perf_counter()
    engine.run(line, known=known)
    engine.pace.learn(2 * engine.context_length, perf_counter() - begin)


def _repeat(engine: Engine, trial: Trial) -> None:
    """Make the forecast of a trial again, and compare."""
    window, wanted = trial.window_array, trial.forecast_array
    found = engine.forecast(window[None], len(wanted), None if trial.known is None else trial.known_array[None])[0]
    allowed = _OF_RANGE * np.ptp(window, axis=0) + _OF_SIZE * np.abs(window).max(axis=0)
    if not (np.abs(found - wanted) <= allowed).all():
        raise ArtifactError(
            "its trial forecast is not the one that is stored in it: its weights have changed since it was exported, "
            "or this machine computes otherwise; export it anew"
        )


def _example_of_known(engine: Engine, length: int) -> Values | None:
    """What may be known of two windows' steps: hours in their order, and rising lines; None where nothing is."""
    if not engine.known:
        return None
    hours = np.datetime64("2024-02-28T12", "s") + np.arange(2 * length) * np.timedelta64(3600, "s")
    rising = np.linspace(1, 2, 2 * length, dtype=np.float32)[:, None].repeat(len(engine.metadata.exogenous), axis=1)
    both = np.concatenate((calendar_of(hours, engine.metadata.calendar), rising), axis=1)
    return both.reshape(2, length, engine.known)


def _tried(engine: Engine, values: Values, state: State | None, known: Values | None) -> Step:
    step = engine.run(values, state, known)
    rows, features = len(values), engine.features
    wanted = {
        FORECAST: (step.forecast, (rows, features)),
        NEXT_STATE: (step.next_state, (rows, engine.state_size)),
        SCALE: (step.scale, (rows, features)),
    }
    for name, (found, shape) in wanted.items():
        if found is None:
            continue
        if found.shape != shape:
            raise ArtifactError(f"its output {name!r} has the shape {found.shape} where {shape} is due")
        # A state is the model's own business; what leaves the service must be numbers.
        if name != NEXT_STATE and not np.isfinite(found).all():
            raise ArtifactError(f"its output {name!r} is not finite for a plain rising line")
    return step
