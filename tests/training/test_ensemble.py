"""Fitting several networks: from seeds of their own, in processes of their own, and averaging weights."""

import multiprocessing
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from service.engine import Engine
from tests.training.tables import hourly, write
from tests.training.test_fit import Quiet, fitted, seasonal_panel
from training.__main__ import main
from training.config import Config
from training.ensemble import Ensemble
from training.errors import FittingError
from training.fit import History, _Run
from training.members import Members, fit_members
from training.model import Forecaster
from training.windows import Batch


class Told(Quiet):
    """Is told of networks that are fitted, and may do something after the first epoch of any."""

    def __init__(self, then: Any = None) -> None:
        super().__init__()
        self.then = then
        self.networks: list[tuple[int, int]] = []
        self.finished = 0

    def member(self, number: int, total: int) -> "Told":
        self.networks.append((number, total))
        return self

    def epoch(self, number: int, total: int, training: float, validation: float | None) -> None:
        self.epochs.append(number)
        if self.then is not None:
            self.then()

    def done(self) -> None:
        self.finished += 1


# What is compiled in the least time: how members are fitted does not depend on what they are.
PLAIN = {"cell": "rnn", "layers": (4,), "output": "vector", "head": "plain", "lags": (), "context_length": 24}


def small(*, seeds: int = 1, checkpoints: int = 1, **fitting: object) -> Config:
    return Config.model_validate(
        {
            "seed": 4,
            "network": PLAIN,
            "fitting": {
                "epochs": 3,
                "steps_per_epoch": 4,
                "batch_size": 16,
                "warm_up": 2,
                "iterated": False,
                **fitting,
            },
            "ensemble": {"seeds": seeds, "checkpoints": checkpoints},
        }
    )


def members(folder: Path, config: Config, told: Told, jobs: int = 2) -> Members:
    panel, split = seasonal_panel()
    return fit_members(panel, split, config, checkpoints=folder, told=told, jobs=jobs)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [(["--combine", "sum"], "--combine"), (["--jobs", "0"], "--jobs"), (["--seeds", "0"], "ensemble.seeds")],
)
def test_a_bad_option_is_refused_by_its_name(
    arguments: list[str], option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--output", str(tmp_path), "--dataset", "nile", *arguments]) == 2

    assert option in capsys.readouterr().err


def test_the_best_epochs_come_first_and_none_without_a_loss_among_them() -> None:
    history = History(training=[0.0] * 4, validation=[2.0, float("nan"), 1.0, 2.0])

    assert history.best_epochs(2) == [3, 1]
    assert history.best_epochs(9) == [3, 1, 4]
    assert History(validation=[float("nan")]).best_epochs(2) == [1]
    assert History().best_epochs(2) == []


def test_the_weights_of_the_best_epochs_are_members(tmp_path: Path) -> None:
    found = members(tmp_path, small(checkpoints=2), Told())

    (run,) = found.runs
    assert list(run.kept) == run.history.best_epochs(2)
    assert [epoch for _, epoch in found.epochs] == list(run.kept)
    assert isinstance(found.network, Ensemble)
    for member, kept in zip(found.network.members, run.kept.values(), strict=True):
        for one, other in zip(member.get_weights(), kept, strict=True):
            np.testing.assert_array_equal(one, other)


def test_averaged_weights_follow_those_of_each_batch_and_are_what_is_judged_and_kept() -> None:
    config = small(average=0.75)
    network = Forecaster.from_network(config.network, features=1, season=None)
    run = _Run(network, keras.optimizers.Adam(0.1), config.fitting)
    batch = Batch(np.random.default_rng(0).standard_normal((16, 30, 1)).astype(np.float32), 24, 6)
    wanted = network.get_weights()

    for step in range(1, 40):
        network.set_weights([weight + 0.1 for weight in network.get_weights()])
        run.optimizer.iterations.assign(step)
        run._average()
        share = min(0.75, step / (step + 9))
        wanted = [share * one + (1 - share) * other for one, other in zip(wanted, network.get_weights(), strict=True)]
    own, loss = network.get_weights(), run.judged([batch])
    run.record(0.0, [batch])

    for place, (kept, average) in enumerate(zip(run.kept[1], wanted, strict=True)):
        np.testing.assert_allclose(kept, average, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(network.get_weights()[place], own[place])
    assert run.history.validation != [loss]


def test_an_interrupted_run_goes_on_with_its_averages_and_the_epochs_it_kept(tmp_path: Path) -> None:
    config = small(average=0.95, checkpoints=2)
    whole = fitted(tmp_path / "whole.npz", config)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "cut.npz", config, Quiet(interrupt_after=2))

    resumed = fitted(tmp_path / "cut.npz", config)

    assert resumed.history == whole.history
    assert list(resumed.kept) == list(whole.kept)
    for epoch, weights in whole.kept.items():
        for one, other in zip(weights, resumed.kept[epoch], strict=True):
            np.testing.assert_array_equal(one, other)


def test_networks_interrupted_and_gone_on_with_are_those_that_each_seed_gives(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    config = small(seeds=2, average=0.95)
    cut = Told(then=interrupt)
    with pytest.raises(KeyboardInterrupt):
        members(tmp_path / "runs", config, cut, jobs=1)
    assert cut.networks == [(1, 2)]
    assert multiprocessing.active_children() == []
    assert [file.name for file in (tmp_path / "runs").iterdir() if file.suffix == ".npz"] == ["seed-4.npz"]

    told = Told()
    found = members(tmp_path / "runs", config, told)

    assert told.networks == [(1, 2), (2, 2)]
    assert told.finished == 2
    assert told.epochs.count(1) == 1  # the interrupted one goes on with its second
    assert [run.seed for run in found.runs] == [4, 5]
    assert isinstance(found.network, Ensemble)
    for run, member in zip(found.runs, found.network.members, strict=True):
        alone = fitted(tmp_path / f"{run.seed}.npz", small(average=0.95).model_copy(update={"seed": run.seed}))
        np.testing.assert_allclose(run.history.validation, alone.history.validation, rtol=1e-4)
        for one, other in zip(member.get_weights(), alone.network.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_process_that_ends_early_is_told_of_in_one_line(tmp_path: Path) -> None:
    def kill() -> None:
        for process in multiprocessing.active_children():
            process.kill()

    with pytest.raises(FittingError, match=r"fitted seed 4 ended before it was done \(SIGKILL\), .* --jobs 1") as told:
        members(tmp_path, small(seeds=2, epochs=2000), Told(then=kill), jobs=1)

    assert "\n" not in str(told.value)
    assert multiprocessing.active_children() == []


def test_a_fitted_ensemble_tells_of_each_network_in_its_file_and_its_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(hourly(300), tmp_path / "load.csv")
    (tmp_path / "small.toml").write_text(
        'seed = 7\n[network]\ncell = "rnn"\nlayers = [4]\noutput = "vector"\nhead = "plain"\ncontext_length = 30\n'
        "[fitting]\nsteps_per_epoch = 2\nbatch_size = 8\naverage = 0.9\n"
    )
    command = ["fit", "--data", str(tmp_path / "load.csv"), "--config", str(tmp_path / "small.toml"), "--horizon", "6"]
    command += ["--epochs", "2", "--seeds", "2", "--combine", "median", "--output", str(tmp_path / "models")]

    assert main(command) == 0

    folder = tmp_path / "models" / "load" / "1"
    assert list(folder.glob("member*")) == []
    training = Engine.open(folder / "model.onnx").metadata.training
    assert [member.seed for member in training.members] == [7, 8]
    assert training.validation_loss is not None
    assert training.configuration["ensemble"] == {
        "seeds": 2,
        "checkpoints": 1,
        "combine": "median",
        "autoregression": None,
    }
    report = (folder / "report.html").read_text()
    assert "The networks of the ensemble" in report
    assert re.search(r"<td>2</td><td>8</td><td>[12]</td>", report)
    assert "2 runs, each from a seed of its own" in report
    said = capsys.readouterr().err
    assert "network 2 of 2, epoch 1 of at most 2: loss" in said
    assert "Traceback" not in said
