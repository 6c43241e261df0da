"""`tune`: a search for a better configuration."""

from functools import partial
from pathlib import Path
from typing import Annotated

from rich.console import Console

from training.commands.given import NOTHING_GIVEN, SEVERAL, Given, prepared
from training.commands.terminal import quieten, say
from training.errors import ConfigError


def tune(
    *,
    output: Path,
    given: Given = NOTHING_GIVEN,
    name: str | None = None,
    epochs: int | None = None,
    learning_rate: str | None = None,
    trials: int = 20,
    widths: Annotated[list[int] | None, SEVERAL] = None,
    depths: Annotated[list[int] | None, SEVERAL] = None,
    contexts: Annotated[list[int] | None, SEVERAL] = None,
    rates: tuple[float, float] | None = None,
    losses: Annotated[list[str] | None, SEVERAL] = None,
    cells: Annotated[list[str] | None, SEVERAL] = None,
    resume: bool = True,
) -> None:
    """Search for a better configuration on validation data, and write the best one as a file that `fit` takes.

    Args:
        output: Folder for best.toml, trials.csv, trials.html, and the journal by which the search can go on.
        name: The name of the model that best.toml makes. The file's name when not given.
        epochs: Most passes over the training windows in each trial, 60 when not given, and in fitting with best.toml.
        learning_rate: That of the first trial, 0.002 when not given; `auto` finds one by a short sweep first.
        trials: How many there are to be, those of earlier runs of the same search included; the first is always the
            configuration as given.
        widths: Units of all layers to choose from; 32 64 128 when not given.
        depths: Numbers of layers to choose from; 1 2 3 when not given.
        contexts: Steps of history to choose from; half the usual, the usual and its double when not given.
        rates: Lowest and highest learning rate; 0.0003 0.01 when not given.
        losses: Among huber, mae and mse; all of them when not given.
        cells: Among lstm, gru, rnn and peephole_lstm; the network's when not given.
        resume: Go on with the search that the folder holds.
    """
    searched = {
        "width": widths,
        "depth": depths,
        "context_length": contexts,
        "learning_rate": rates,
        "loss": losses,
        "cell": cells,
    }
    table, config = given.read(
        {"name": name, "fitting": {"epochs": epochs, "learning_rate": learning_rate}, "tune": searched}
    )
    if trials < 1:
        raise ConfigError("--trials: at least 1, which is the configuration as given")
    quieten()
    from training.pipeline import without_messages
    from training.progress import Bars
    from training.trials import show
    from training.trials_report import write

    panel, config, parts = prepared(table, config)
    with without_messages():
        from training.tune import search
    with Bars(Console(stderr=True)) as bars:
        for note in panel.notes:
            bars.say(note)
        keep = partial(write, table.source, panel.notes, output)
        found = search(panel, parts, config, output, trials=trials, resume=resume, told=bars, after=keep)
    shown = Console()
    show(shown, found)
    for written in write(table.source, panel.notes, output, found):
        say(shown, f"wrote {written}")
