"""What a search has tried: a record of each trial, their table, what they say together, and the best one as a file."""

import math
from dataclasses import dataclass
from typing import Final

import pandas as pd
import tomli_w
from rich.console import Console
from rich.table import Table as Grid

from training.config import Config

PARAMETERS: Final = ("width", "depth", "context_length", "learning_rate", "loss", "cell")


@dataclass(frozen=True)
class Trial:
    """One configuration that was fitted, to its end or until it was given up.

    Attributes:
        number: from 0, which is the configuration as it was given.
        config: what was fitted.
        error: mean absolute scaled error of its forecasts over the validation part; infinite where they are no numbers.
        pruned: whether it was given up before its end; `error` is then that of its last epoch.
        epochs: how many it was fitted for.
        weights: numbers that were learnt.
        seconds: that it took.
    """

    number: int
    config: Config
    error: float
    pruned: bool
    epochs: int
    weights: int
    seconds: float

    @property
    def parameters(self) -> dict[str, object]:
        """What is searched, by name: units where all layers have as many, else those of each."""
        network, fitting = self.config.network, self.config.fitting
        even = len(set(network.layers)) == 1
        return {
            "width": network.layers[0] if even else " and ".join(str(units) for units in network.layers),
            "depth": len(network.layers),
            "context_length": network.context_length,
            "learning_rate": fitting.learning_rate,
            "loss": fitting.loss,
            "cell": network.cell,
        }


@dataclass(frozen=True)
class Trials:
    """The trials of a search in their order, the first being the configuration as it was given."""

    all: tuple[Trial, ...]

    @property
    def given(self) -> Trial:
        return self.all[0]

    @property
    def best(self) -> Trial:
        """Of those that were fitted to their end, the one of the least error; the earlier one of two alike."""
        return min((trial for trial in self.all if not trial.pruned), key=lambda trial: trial.error)

    @property
    def best_so_far(self) -> list[float]:
        """The least error of those finished up to each trial."""
        lowest, found = math.inf, []
        for trial in self.all:
            lowest = lowest if trial.pruned else min(lowest, trial.error)
            found.append(lowest)
        return found

    @property
    def searched(self) -> list[str]:
        """The parameters that differ among the trials."""
        return [name for name in PARAMETERS if len({trial.parameters[name] for trial in self.all}) > 1]

    @property
    def verdict(self) -> str:
        """Say how much better the best trial is than the configuration as it was given."""
        given, best, count = self.given.error, self.best, len(self.all)
        over = f"of {count} trials" if count > 1 else "of 1 trial"
        if best is self.given or not best.error < given:
            return f"No trial {over} is better on validation data than the configuration as given, {given:.4g}."
        gain = "which has none" if math.isinf(given) else f"{given:.4g}, by {100 * (1 - best.error / given):.1f} %"
        return (
            f"Trial {best.number} {over} is the best: on validation data its error is {best.error:.4g}, below that of "
            f"the configuration as given, {gain}."
        )

    @property
    def ranked(self) -> list[Trial]:
        """From the least error on; those that were given up come last."""
        return sorted(self.all, key=lambda trial: (trial.pruned, trial.error))

    def frame(self) -> pd.DataFrame:
        """A row for each trial."""
        return pd.DataFrame(
            {
                "trial": trial.number,
                "state": "pruned" if trial.pruned else "finished",
                "mase": trial.error,
                "epochs": trial.epochs,
                "seconds": round(trial.seconds, 1),
                "weights": trial.weights,
                **trial.parameters,
            }
            for trial in self.all
        )

    def toml(self) -> str:
        """The best configuration as a TOML file that `fit --config` reads."""
        sections = self.best.config.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        keys = {name: held for name, held in sections.items() if held != {}}
        return f"# {self.verdict}\n\n{tomli_w.dumps(keys)}"


def show(console: Console, trials: Trials) -> None:
    """Print the trials, the best ones first, and the verdict."""
    grid = Grid("trial", title="mean absolute scaled error on validation data")
    names = [name for name in PARAMETERS if name in trials.searched]
    for heading in ("error", "epochs", *(name.replace("_", " ") for name in names)):
        grid.add_column(heading, justify="right")
    for trial in trials.ranked:
        error = "given up" if trial.pruned else f"{trial.error:.4g}"
        cells = [str(trial.parameters[name]) for name in names]
        grid.add_row(str(trial.number), error, str(trial.epochs), *cells, style="bold" if trial is trials.best else "")
    console.print(grid)
    console.print(trials.verdict, highlight=False, markup=False, soft_wrap=True)
