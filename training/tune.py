"""The search for a better configuration: trials are fitted, judged on the validation part alone, and given up if poor.

What is tried next is chosen by Optuna's tree-structured Parzen estimator (Bergstra et al., 2011) from the trials so
far; a trial is given up as soon as its best error yet is above the median of the others' at the same epoch.
"""

import gc
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import keras
import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from service.artifact import LONGEST_CONTEXT, METADATA_KEY, Metadata, Provenance
from service.engine import Engine
from service.errors import ArtifactError
from training.backtest import MODEL, Block, forecast, stride_of
from training.config import Config
from training.errors import ConfigError, Interrupted, OutputError
from training.export import convert
from training.fit import fit_network, unfitted
from training.metrics import seasonal_spread
from training.model import Forecaster
from training.panel import Panel
from training.parts import Split, rows_needed
from training.sweep import forget_rate, with_a_rate
from training.trials import Trial, Trials
from training.versions import writing
from training.windows import Windows, minimum_window

JOURNAL_NAME: Final = "trials.journal"

_STUDY: Final = "leadtime"
_KEPT: Final = ".unfinished"  # folder of the state of the trial that is being fitted
_MOST_SERIES: Final = 500  # judged, where a panel has more
_UNPRUNED: Final = 4  # trials that are fitted to their end, so that others can be held against them
_UNPRUNED_SHARE: Final = 0.1  # of the epochs: what comes before says little
_DRAWN: Final = 8  # trials drawn at random, before the others are chosen by what they told
_RATE_DIGITS: Final = 3
_FINISHED: Final = (TrialState.COMPLETE, TrialState.PRUNED)


class Told(Protocol):
    """Who is told of a search's progress."""

    def say(self, line: str) -> None: ...

    def stage(self, name: str, done: int, total: int, told: str = "") -> None: ...


Space = Mapping[str, BaseDistribution]


def search(
    panel: Panel,
    split: Split,
    config: Config,
    folder: Path,
    *,
    trials: int,
    resume: bool,
    told: Told,
    after: Callable[[Trials], object] = lambda found: None,
) -> Trials:
    """Fit `trials` configurations, the given one first, and tell how good each is on validation data.

    Each finished trial is written to the folder's journal at once, and the state of the one being fitted after each
    epoch: the same search, begun again, goes on from there, and to the same end as one that was not interrupted.

    Args:
        panel: the series.
        split: where their parts meet; the test parts are not touched.
        config: what is tried first, and what the others differ from within `config.tune`.
        folder: of the journal; it is made where it is missing.
        trials: how many there are to be, those of earlier runs included.
        resume: whether to go on; else the folder's journal is begun anew.
        told: is told of trials and epochs.
        after: is called with all trials so far, after each.

    Raises:
        ConfigError: a context to try is longer than the series have room for.
        OutputError: the folder cannot be written to, or holds another search.
        Interrupted: by the keyboard or a signal.
    """
    choices = space(panel, split, config)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with writing(folder):
        if not resume:
            _forget(folder)
        study = _open(folder, _digest(panel, config), config.fitting.epochs)
        try:
            config = with_a_rate(panel, split, config, folder, told)
            return _Search(study, panel, split, config, choices, folder / _KEPT, told).run(trials, after)
        except KeyboardInterrupt:
            done = len(study.get_trials(deepcopy=False, states=_FINISHED))
            raise Interrupted(
                f"interrupted after {done} of {trials} trials: the same command goes on from there"
            ) from None


def space(panel: Panel, split: Split, config: Config) -> Space:
    """What is searched, by name: choices, and the learning rate between its bounds on a logarithmic scale.

    Raises:
        ConfigError: the series have no room for a context that is asked for.
    """
    given, network = config.tune, config.network
    chosen: dict[str, Sequence[Any]] = {
        "width": given.width,
        "depth": given.depth,
        "context_length": _contexts(panel, split, config),
        "loss": given.loss or (("pinball",) if config.fitting.loss == "pinball" else ("huber", "mae", "mse")),
        "cell": given.cell or (network.cell,),
    }
    found: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(list(dict.fromkeys(values))) for name, values in chosen.items()
    }
    lowest, highest = given.learning_rate
    return found | {"learning_rate": FloatDistribution(lowest, highest, log=True)}


def configured(config: Config, parameters: Mapping[str, Any]) -> Config:
    """The configuration of a trial: a given one with what was chosen for it."""
    network = {
        "layers": (parameters["width"],) * parameters["depth"],
        "context_length": parameters["context_length"],
        "cell": parameters["cell"],
    }
    rate = float(f"{parameters['learning_rate']:.{_RATE_DIGITS}g}")
    fitting = {"learning_rate": rate, "loss": parameters["loss"]}
    return config.model_copy(
        update={
            "network": config.network.model_copy(update=network),
            "fitting": config.fitting.model_copy(update=fitting),
        }
    )


def chosen(config: Config, choices: Space) -> dict[str, Any] | None:
    """The parameters of a configuration, as `configured` takes them; None where it lies outside of the choices."""
    network, fitting = config.network, config.fitting
    found = {
        "width": network.layers[0],
        "depth": len(network.layers),
        "context_length": network.context_length,
        "learning_rate": fitting.rate,
        "loss": fitting.loss,
        "cell": network.cell,
    }
    even = len(set(network.layers)) == 1
    within = all(_holds(choices[name], value) for name, value in found.items())
    return found if even and within and configured(config, found) == config else None


class Judge:
    """Tells how far off a network's forecasts are, from origins of the validation part that are the same for every one.

    It is the mean absolute scaled error, of all lead times, of what would be served: MASE, its divisor the mean
    absolute difference one season apart within the training part. Where a quantile is fitted it is twice the pinball
    loss instead, which for the median is the same.
    """

    def __init__(self, panel: Panel, split: Split, config: Config, folder: Path) -> None:
        self._panel, self._horizon = panel, split.horizon
        self._quantile = config.fitting.quantile or 0.5
        self._file = folder / "judged.onnx"
        self._blocks = _blocks(panel, split)

    def __call__(self, network: Forecaster) -> float:
        """The error of a network; infinite where its forecasts are no numbers."""
        sums, count = 0.0, 0
        try:
            engine = self._served(network)
            for roll in forecast(engine, self._blocks, self._horizon, scales=False):
                errors = roll.actual - roll.forecasts[MODEL]  # (origins, horizon, features)
                losses = 2 * np.maximum(self._quantile * errors, (self._quantile - 1) * errors)
                scaled = (losses / np.where(roll.spread > 0, roll.spread, np.nan)[:, None]).ravel()
                known = scaled[~np.isnan(scaled)]
                sums, count = sums + float(known.sum()), count + len(known)
        except ArtifactError:  # the network forecasts what is no number
            return float("inf")
        return sums / count if count else float("inf")

    def _served(self, network: Forecaster) -> Engine:
        """The network as the service would open it."""
        graph = convert(network)
        context, season = network.network.context_length, self._panel.season
        metadata = Metadata(
            name="trial",
            version="1",
            description="",
            context_length=context,
            minimum_window=minimum_window(context, season),
            features=self._panel.features,
            state_size=network.state_size,
            frequency=self._panel.frequency,
            season_length=season,
            calendar=self._panel.calendar,
            exogenous=self._panel.exogenous,
            training=Provenance(
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                data="",
                series=len(self._panel.series),
                observations=1,
                configuration={},
                libraries={},
            ),
        )
        graph.metadata_props.add(key=METADATA_KEY, value=metadata.model_dump_json())
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_bytes(graph.SerializeToString())
        return Engine.open(self._file)


class _Poor(Exception):
    """A trial is not worth going on with."""


class _Watch:
    """Judges the network of a trial after each epoch, and ends the trial where it is poor.

    The errors are kept beside the checkpoint, so that a trial that goes on is still held against others from its start.
    """

    def __init__(self, trial: optuna.Trial, network: Forecaster, judge: Judge, kept: Path, told: Told) -> None:
        self._trial, self._network, self._judge, self._told = trial, network, judge, told
        self._file = kept / "errors.json"
        self._errors: dict[int, float] = {}  # by epoch; that of one in which the search was interrupted may be missing
        if self._file.exists():
            self._errors = {int(epoch): error for epoch, error in json.loads(self._file.read_text()).items()}
        for epoch, error in self._errors.items():
            trial.report(error, epoch)

    def batch(self, done: int, total: int) -> None:
        self._told.stage("    batches", done, total)

    def epoch(self, number: int, total: int, training: float, validation: float | None) -> None:
        error = self._judge(self._network)
        if number not in self._errors:
            self._errors[number] = error
            self._trial.report(error, number)
        unfinished = self._file.with_suffix(".part")
        unfinished.write_text(json.dumps(self._errors))
        unfinished.replace(self._file)
        self._told.stage("  epochs", number, total, f"error {error:.4g}")
        if self._trial.should_prune():
            raise _Poor

    @property
    def epochs(self) -> int:
        return max(self._errors, default=0)


@dataclass(frozen=True)
class _Search:
    """A search under way, in a study that keeps its trials."""

    study: optuna.Study
    panel: Panel
    split: Split
    config: Config
    choices: Space
    kept: Path
    told: Told

    def run(self, trials: int, after: Callable[[Trials], object]) -> Trials:
        """Make as many trials as are missing."""
        judge = Judge(self.panel, self.split, self.config, self.kept)
        while len(found := self.finished()) < trials:
            self.told.stage("trials", len(found), trials, f"best {Trials(found).best.error:.4g}" if found else "")
            self._try(len(found), judge)
            known = Trials(self.finished())
            self.told.say(_in_words(known, trials))
            after(known)
        shutil.rmtree(self.kept, ignore_errors=True)
        return Trials(self.finished())

    def finished(self) -> tuple[Trial, ...]:
        """The trials that have come to an end, in the order of their beginnings."""
        found = self.study.get_trials(deepcopy=False, states=_FINISHED)
        return tuple(_told_by(trial, number) for number, trial in enumerate(found))

    def _try(self, number: int, judge: Judge) -> None:
        """Make the next trial. It is the same one whether or not it was begun before, and goes on where that ended."""
        trial = self._asked(number)
        config = configured(self.config, trial.params) if number else self.config
        kept = self.kept / hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16]
        kept.mkdir(parents=True, exist_ok=True)
        keras.utils.clear_session()
        gc.collect()  # the graphs of the last trial refer to themselves
        network = unfitted(self.panel, self.split, config)
        windows = Windows.cut(self.panel, self.split, config)
        watch = _Watch(trial, network, judge, kept, self.told)
        began = time.monotonic()
        value: float | None = None
        with suppress(_Poor):
            fit_network(
                network,
                windows.epoch,
                windows.judged(),
                config.fitting,
                steps_per_epoch=windows.steps_per_epoch,
                checkpoint=kept / "run.npz",
                progress=watch,
            )
            value = judge(network)
        trial.set_user_attr("configuration", config.model_dump(mode="json", exclude_unset=True))
        trial.set_user_attr("epochs", watch.epochs)
        trial.set_user_attr("weights", network.count_params())
        trial.set_user_attr("seconds", time.monotonic() - began)
        if value is None:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, value)
        shutil.rmtree(kept, ignore_errors=True)

    def _asked(self, number: int) -> optuna.Trial:
        """The next trial of the study: the configuration as given, or what the finished trials suggest."""
        # Seeded anew for each, so that a search that was interrupted goes on as it would have.
        seed = int(np.random.default_rng((self.config.seed, number)).integers(2**31))
        self.study.sampler = optuna.samplers.TPESampler(n_startup_trials=_DRAWN, seed=seed)
        if number:
            return self.study.ask(dict(self.choices))
        first = chosen(self.config, self.choices)
        if first is None:
            return self.study.ask({})
        if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self.study.enqueue_trial(first)
        return self.study.ask(dict(self.choices))


def _open(folder: Path, digest: str, epochs: int) -> optuna.Study:
    """The study in a folder's journal; what was under way in it when it was left is put down as failed."""
    pruner = optuna.pruners.MedianPruner(
        n_startup_trials=_UNPRUNED, n_warmup_steps=max(2, round(_UNPRUNED_SHARE * epochs))
    )
    file = folder / JOURNAL_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(file)))
        study = optuna.create_study(study_name=_STUDY, storage=storage, pruner=pruner, load_if_exists=True)
        known = study.user_attrs.setdefault("of", None)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AssertionError):
        raise OutputError(f"{file}: not a readable journal of trials: begin the search anew with --no-resume") from None
    if known is None:
        study.set_user_attr("of", digest)
    elif known != digest:
        raise OutputError(
            f"{folder}: holds a search of other data or settings: give another folder, or begin anew with --no-resume"
        )
    for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(left.number, state=TrialState.FAIL)
    return study


def _forget(folder: Path) -> None:
    (folder / JOURNAL_NAME).unlink(missing_ok=True)
    forget_rate(folder)
    shutil.rmtree(folder / _KEPT, ignore_errors=True)


def _digest(panel: Panel, config: Config) -> str:
    """Of everything that decides how the trials come out."""
    settings = config.model_dump_json(exclude={"name", "description"})
    return hashlib.sha256(f"{settings}\n{config.tune.model_dump_json()}\n{panel.digest}".encode()).hexdigest()


def _told_by(trial: FrozenTrial, number: int) -> Trial:
    told = trial.user_attrs
    return Trial(
        number=number,
        config=Config.model_validate(told["configuration"]),
        error=float("inf") if trial.value is None else trial.value,
        pruned=trial.state == TrialState.PRUNED,
        epochs=told["epochs"],
        weights=told["weights"],
        seconds=told["seconds"],
    )


def _contexts(panel: Panel, split: Split, config: Config) -> Sequence[int]:
    """The contexts to choose from, all of which the series have room for."""
    most = _longest_context(panel, split, config)
    if config.tune.context_length is None:
        usual = config.network.context_length
        found = (max(1, usual // 2), usual, min(2 * usual, LONGEST_CONTEXT))
        least = config.ensemble.autoregression or 1
        return [context for context in found if least <= context <= max(most, usual)]
    if max(config.tune.context_length) > most:
        raise ConfigError(f"configuration key tune.context_length: the series have room for at most {most} steps")
    return config.tune.context_length


def _longest_context(panel: Panel, split: Split, config: Config) -> int:
    lengths = [len(one.values) for one in panel.series]
    spare = min(length - rows_needed(length, split.horizon, config) for length in lengths)
    return config.network.context_length + spare


def _blocks(panel: Panel, split: Split) -> list[Block]:
    """Origins spread over the validation parts, at least one of each series; of very many series, of some of them."""
    pairs = list(zip(panel.series, split.boundaries, strict=True))
    places = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), _MOST_SERIES)).astype(int))
    taken = [pairs[place] for place in places]
    rooms = [part.validation_end - split.horizon - part.train_end + 1 for _, part in taken]
    stride = stride_of(rooms, panel.season)
    return [
        Block(
            series=one,
            origins=np.arange(part.train_end - 1, part.validation_end - split.horizon, stride),
            start=part.train_end - 1,
            rules={},
            spread=seasonal_spread(one.values[: part.train_end], panel.season)[None],
        )
        for one, part in taken
    ]


def _holds(choice: BaseDistribution, value: Any) -> bool:
    if isinstance(choice, CategoricalDistribution):
        return value in choice.choices
    return isinstance(choice, FloatDistribution) and choice.low <= value <= choice.high


def _in_words(found: Trials, of: int) -> str:
    last = found.all[-1]
    ended = f"given up after {last.epochs} epochs, error {last.error:.4g}" if last.pruned else f"error {last.error:.4g}"
    best = ", the best so far" if last is found.best else ""
    network = ", ".join(str(value) for value in last.parameters.values())
    return f"trial {last.number}, {len(found.all)} of {of} ({network}): {ended}{best}"
