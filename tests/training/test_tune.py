"""The search: what it tries, what it judges by, how it is interrupted and goes on, and what it writes."""

import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from tests.training.tables import hourly, write
from tests.training.test_fit import seasonal_panel
from training import tune
from training.__main__ import main
from training.config import Config, Tuning, read_config
from training.errors import ConfigError, Interrupted, OutputError
from training.model import Forecaster
from training.panel import Panel
from training.trials import Trial, Trials
from training.trials_report import parameters_plot, render, trials_plot
from training.trials_report import write as write_report
from training.tune import Judge, chosen, configured, search, space

TRIALS = 2


class Told:
    """Remembers what was said, and may interrupt at an epoch of a trial."""

    def __init__(self, interrupt: tuple[int, int] | None = None) -> None:
        self.lines: list[str] = []
        self.epochs = 0
        self._interrupt, self._trial = interrupt, 0

    def say(self, line: str) -> None:
        self.lines.append(line)

    def stage(self, name: str, done: int, total: int, told: str = "") -> None:
        assert 0 <= done <= total
        if name == "trials":
            self._trial = done
        if name == "  epochs":
            self.epochs += 1
            if (self._trial, done) == self._interrupt:
                raise KeyboardInterrupt


def config(**given: dict[str, Any]) -> Config:
    return Config.model_validate(
        {
            "network": {"layers": [4], "context_length": 12},
            "fitting": {"epochs": 2, "steps_per_epoch": 3, "batch_size": 8, "warm_up": 2} | given.pop("fitting", {}),
            "tune": {"width": [3, 4], "depth": [1], "context_length": [8, 12], "loss": ["huber", "mae"]},
        }
        | given
    )


def fitted_with(given: Config) -> Config:
    """What of a configuration decides how a trial comes out."""
    return given.model_copy(update={"tune": Tuning()})


def searched(folder: Path, told: Told | None = None, trials: int = TRIALS, given: Config | None = None) -> Trials:
    panel, split = seasonal_panel()
    return search(panel, split, given or config(), folder, trials=trials, resume=True, told=told or Told())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trials, Told]:
    """A search that nobody interrupted."""
    folder, told = tmp_path_factory.mktemp("whole"), Told()
    return folder, searched(folder, told), told


def without_times(trials: Trials) -> list[Trial]:
    return [replace(trial, seconds=0.0) for trial in trials.all]


def test_the_first_trial_is_the_configuration_as_given(whole: tuple[Path, Trials, Told]) -> None:
    _, trials, told = whole

    assert trials.given.config == fitted_with(config())
    assert len(trials.all) == TRIALS
    assert [trial.number for trial in trials.all] == list(range(TRIALS))
    assert all(np.isfinite(trial.error) and trial.weights > 0 for trial in trials.all)
    assert told.lines[0].startswith("trial 0, 1 of 2 (4, 1, 12, 0.002, huber, lstm): error ")


def test_an_interrupted_search_goes_on_to_the_end_of_an_uninterrupted_one(
    whole: tuple[Path, Trials, Told], tmp_path: Path
) -> None:
    with pytest.raises(Interrupted, match="interrupted after 1 of 2 trials: the same command goes on from there"):
        searched(tmp_path, Told(interrupt=(1, 1)))

    told = Told()
    resumed = searched(tmp_path, told)

    assert without_times(resumed) == without_times(whole[1])
    assert told.epochs == 2 * (TRIALS - 1) - 1  # neither the finished trial nor the finished epoch again


def test_a_finished_search_fits_nothing_again_and_more_trials_go_on_from_it(whole: tuple[Path, Trials, Told]) -> None:
    folder, trials, _ = whole
    told = Told()

    again = searched(folder, told)

    assert again == trials
    assert told.epochs == 0
    assert {path.name for path in folder.iterdir()} == {"trials.journal"}


def test_a_folder_with_another_search_is_refused(whole: tuple[Path, Trials, Told]) -> None:
    with pytest.raises(OutputError, match="holds a search of other data or settings: give another folder"):
        searched(whole[0], given=config(fitting={"batch_size": 9}))


def test_a_damaged_journal_is_refused_and_begun_anew_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "trials.journal").write_text("not\na journal\n")

    with pytest.raises(OutputError, match="not a readable journal of trials: begin the search anew with --no-resume"):
        searched(tmp_path, trials=1)

    tune._forget(tmp_path)
    assert tune._open(tmp_path, "digest", epochs=10).trials == []


def test_trials_differ_from_the_given_configuration_in_what_is_searched_alone(
    whole: tuple[Path, Trials, Told],
) -> None:
    for trial in whole[1].all:
        network, fitting = trial.config.network, trial.config.fitting
        assert network.layers in ((3,), (4,))
        assert network.context_length in (8, 12)
        assert fitting.loss in ("huber", "mae")
        assert 3e-4 <= fitting.rate <= 1e-2
        assert trial.config == configured(fitted_with(config()), trial.parameters)


def judged(panel: Panel, folder: Path, quantile: float | None = None) -> float:
    _, split = seasonal_panel()
    fitting: dict[str, Any] = {} if quantile is None else {"loss": "pinball", "quantile": quantile}
    given = config(fitting=fitting, tune={"width": [4]})
    network = Forecaster.from_network(given.network, features=1, season=6)
    network.set_weights([np.full(weight.shape, 0.01, np.float32) for weight in network.get_weights()])
    return Judge(panel, split, given, folder)(network)


def test_the_test_part_is_not_judged_and_the_validation_part_is(tmp_path: Path) -> None:
    panel, split = seasonal_panel()
    (series,) = panel.series
    (part,) = split.boundaries
    error = judged(panel, tmp_path)

    def changed(step: int) -> Panel:
        values = series.values.copy()
        values[step:] = 1e6
        return replace(panel, series=(replace(series, values=values),))

    assert judged(changed(part.validation_end), tmp_path) == error
    assert judged(changed(part.validation_end - 1), tmp_path) > error


def test_the_error_is_the_mean_absolute_scaled_error_whatever_is_fitted(tmp_path: Path) -> None:
    panel, _ = seasonal_panel()

    assert judged(panel, tmp_path, quantile=0.5) == pytest.approx(judged(panel, tmp_path))
    assert judged(panel, tmp_path, quantile=0.9) != pytest.approx(judged(panel, tmp_path))


def test_forecasts_that_are_no_numbers_are_the_worst(tmp_path: Path) -> None:
    panel, split = seasonal_panel()
    network = Forecaster.from_network(config().network, features=1, season=6)
    network.set_weights([np.full(weight.shape, np.nan, np.float32) for weight in network.get_weights()])

    assert Judge(panel, split, config(), tmp_path)(network) == float("inf")


def test_a_trial_that_is_poor_is_given_up(tmp_path: Path) -> None:
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=2))
    for error in (1.0, 1.2):
        trial = study.ask()
        for epoch in range(1, 5):
            trial.report(error, epoch)
        study.tell(trial, error)
    network = Forecaster.from_network(config().network, features=1, season=6)

    def epochs(*errors: float) -> int:
        found = iter(errors)
        judge: Any = lambda network: next(found)  # noqa: E731
        folder = tmp_path / str(len(study.trials))
        folder.mkdir()
        watch = tune._Watch(study.ask(), network, judge, folder, Told())
        for number in range(1, 5):
            try:
                watch.epoch(number, 4, 0.0, 0.0)
            except tune._Poor:
                break
        return watch.epochs

    assert epochs(2.0, 2.0, 2.0, 2.0) == 2
    assert epochs(2.0, float("inf"), 1.0, 1.0) == 2
    assert epochs(2.0, 1.0, 1.0, 1.0) == 4


def test_what_was_under_way_when_a_process_was_killed_is_put_down_as_failed(tmp_path: Path) -> None:
    study = tune._open(tmp_path, "digest", epochs=10)
    study.ask()

    again = tune._open(tmp_path, "digest", epochs=10)

    assert [trial.state for trial in again.trials] == [TrialState.FAIL]


def test_the_usual_contexts_are_those_that_the_series_have_room_for() -> None:
    panel, split = seasonal_panel()

    def contexts(context: int) -> object:
        given = Config.model_validate({"network": {"context_length": context}})
        return list(space(panel, split, given)["context_length"].choices)  # type: ignore[attr-defined]

    assert contexts(48) == [24, 48, 96]
    assert contexts(200) == [100, 200]


def test_no_usual_context_is_shorter_than_what_an_autoregression_sees() -> None:
    panel, split = seasonal_panel()
    network = {"output": "horizon", "context_length": 48}
    given = Config.model_validate({"network": network, "ensemble": {"autoregression": 30}})

    assert list(space(panel, split, given)["context_length"].choices) == [48, 96]  # type: ignore[attr-defined]


def test_a_search_begun_anew_looks_for_a_learning_rate_of_its_own(tmp_path: Path) -> None:
    panel, split = seasonal_panel()
    (tmp_path / ".learning-rate").write_text("0.125")
    told = Told()
    given = config(fitting={"learning_rate": "auto"})

    search(panel, split, given, tmp_path, trials=1, resume=False, told=told)

    assert not any("as found when the run began" in line for line in told.lines)


def test_a_context_without_room_is_refused_with_the_longest_that_has() -> None:
    panel, split = seasonal_panel()
    given = Config.model_validate({"tune": {"context_length": [12, 400]}, "network": {"context_length": 12}})

    with pytest.raises(ConfigError, match=r"key tune.context_length: the series have room for at most 313 steps"):
        space(panel, split, given)


def test_a_configuration_outside_of_the_choices_is_the_first_trial_all_the_same() -> None:
    panel, split = seasonal_panel()
    given = config(network={"layers": [4, 5], "context_length": 12})

    assert chosen(given, space(panel, split, given)) is None
    assert chosen(config(), space(panel, split, config())) == {
        "width": 4,
        "depth": 1,
        "context_length": 12,
        "learning_rate": 2e-3,
        "loss": "huber",
        "cell": "lstm",
    }


def test_a_quantile_is_searched_for_with_its_own_loss_alone() -> None:
    panel, split = seasonal_panel()
    given = Config.model_validate({"fitting": {"loss": "pinball", "quantile": 0.9}, "network": {"context_length": 12}})

    assert space(panel, split, given)["loss"].choices == ("pinball",)  # type: ignore[attr-defined]


def trial(number: int, error: float, *, pruned: bool = False, **network: Any) -> Trial:
    given = Config.model_validate({"network": network, "fitting": {"learning_rate": 1e-3 * (number + 1)}})
    return Trial(number, given, error, pruned, epochs=5, weights=1000, seconds=60.0)


MANY = Trials(
    (
        trial(0, 1.0),
        trial(1, float("inf"), layers=[8]),
        trial(2, 0.8, pruned=True, layers=[8]),
        trial(3, 0.9, layers=[8, 8], context_length=96, convolution={"filters": 4}),
        trial(4, 0.9, layers=[8, 4]),
    )
)


def test_the_best_trial_is_the_first_of_the_least_error_that_was_fitted_to_its_end() -> None:
    assert MANY.best is MANY.all[3]
    assert MANY.best_so_far == [1.0, 1.0, 1.0, 0.9, 0.9]
    assert [one.number for one in MANY.ranked] == [3, 4, 0, 1, 2]


@pytest.mark.parametrize(
    ("trials", "told"),
    [
        (MANY, "Trial 3 of 5 trials is the best: on validation data its error is 0.9, below that of the configuration "
         "as given, 1, by 10.0 %."),
        (Trials((trial(0, 1.0), trial(1, 1.0))), "No trial of 2 trials is better on validation data than the"),
        (Trials((trial(0, 1.0),)), "No trial of 1 trial is better on validation data than the configuration as given"),
        (Trials((trial(0, float("inf")), trial(1, 1.0))), "Trial 1 of 2 trials is the best: on validation data its"),
    ],
    ids=["better", "as good", "alone", "of no number"],
)  # fmt: skip
def test_the_verdict_says_how_much_better_the_best_is(trials: Trials, told: str) -> None:
    assert trials.verdict.startswith(told)


def test_the_best_configuration_is_read_back_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "best.toml").write_text(MANY.toml())

    assert read_config(tmp_path / "best.toml", {}) == MANY.best.config
    assert tomllib.loads(MANY.toml()).keys() == {"network", "fitting"}


def test_the_table_has_a_row_for_each_trial(tmp_path: Path) -> None:
    written = write_report("my/load.csv", ("hourly <b>",), tmp_path / "out", MANY)

    assert [path.name for path in written] == ["best.toml", "trials.csv", "trials.html"]
    table = pd.read_csv(tmp_path / "out" / "trials.csv")
    assert list(table["state"]) == ["finished", "finished", "pruned", "finished", "finished"]
    assert list(table["width"].astype(str)) == ["64", "8", "8", "8", "8 and 4"]
    page = (tmp_path / "out" / "trials.html").read_text()
    assert MANY.verdict in page
    assert "hourly &lt;b&gt;" in page
    assert "http" not in page.replace("Content-Security-Policy", "").replace("http-equiv", "")


@pytest.mark.parametrize("draw", [trials_plot, parameters_plot])
@pytest.mark.parametrize(
    "trials",
    [MANY, Trials((trial(0, 1.0), trial(1, 1.0))), Trials((trial(0, float("inf")), trial(1, float("inf"))))],
    ids=["many", "alike", "no number"],
)
def test_plots_are_drawn_whatever_the_errors(draw: Callable[[Trials], Any], trials: Trials, tmp_path: Path) -> None:
    draw(trials).savefig(tmp_path / "plot.png")

    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_a_single_trial_makes_a_page_without_parameters() -> None:
    assert "By parameter" not in render("load.csv", (), Trials((trial(0, 1.0),)))


def test_the_command_writes_a_configuration_that_fit_takes_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(write(hourly(400), tmp_path / "load.csv"))
    (tmp_path / "small.toml").write_text(
        "[network]\nlayers = [4]\ncontext_length = 30\n[fitting]\nsteps_per_epoch = 2\nbatch_size = 4\nepochs = 1\n"
    )
    output = tmp_path / "out"
    command = ["tune", "--data", data, "--config", str(tmp_path / "small.toml"), "--output", str(output)]
    command += ["--trials", "2", "--widths", "4", "--depths", "1", "--contexts", "30", "--losses", "mae"]

    assert main(command) == 0

    captured = capsys.readouterr()
    assert "trial 0, 1 of 2 (4, 1, 30, 0.002, huber, lstm): error" in captured.err
    assert "as given" in captured.out
    assert {path.name for path in output.iterdir()} == {"trials.journal", "best.toml", "trials.csv", "trials.html"}
    assert len(pd.read_csv(output / "trials.csv")) == 2
    assert main(["fit", "--config", str(output / "best.toml"), "--data", data, "--output", str(tmp_path / "m")]) == 0
    assert (tmp_path / "m" / "load" / "1" / "model.onnx").exists()

    other = str(write(hourly(400, seed=1), tmp_path / "other.csv"))
    assert main([*command[:2], other, *command[3:]]) == 2
    assert "holds a search of other data or settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--trials", "0"], "--trials: at least 1, which is the configuration as given"),
        (["--losses", "rmse"], "configuration key tune.loss: Input should be 'huber', 'mae' or 'mse'"),
        (["--rates", "1", "0.1"], "configuration key tune.learning_rate: the first number is the lowest rate"),
    ],
    ids=["trials", "losses", "rates"],
)
def test_a_bad_option_gets_one_line(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(write(hourly(400), tmp_path / "load.csv"))

    assert main(["tune", "--data", data, "--output", str(tmp_path / "out"), *arguments]) == 2

    said = capsys.readouterr().err
    assert said.startswith(f"error: {told}")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")


def test_the_document_tells_every_key_and_shows_a_file_that_is_read(tmp_path: Path) -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE)) == set(Tuning.model_fields)
    (shown,) = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    (tmp_path / "run.toml").write_text(shown)
    assert read_config(tmp_path / "run.toml", {}).tune.depth == (1, 2, 3)


def test_the_document_and_the_command_tell_the_same_options(capsys: pytest.CaptureFixture[str]) -> None:
    told = set(re.findall(r"\| `(--\w+)` \|", DOCUMENT))

    assert main(["tune", "--help"]) == 0

    assert told == {"--widths", "--depths", "--contexts", "--rates", "--losses", "--cells"}
    assert told <= set(re.findall(r"--\w+", capsys.readouterr().out))
