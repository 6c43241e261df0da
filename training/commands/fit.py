"""`fit`: a model, and a report of how well it forecasts."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter, validators
from rich.console import Console

from service.artifact import FILE_NAME
from training.commands.given import NOTHING_GIVEN, Given
from training.commands.scores import show_scores
from training.commands.terminal import quieten, say


def fit(
    *,
    output: Path,
    given: Given = NOTHING_GIVEN,
    name: str | None = None,
    epochs: int | None = None,
    learning_rate: str | None = None,
    seeds: int | None = None,
    combine: Literal["mean", "median"] | None = None,
    jobs: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    resume: bool = True,
) -> None:
    """Fit a model on a table, and write it to OUTPUT/NAME/VERSION with a report of how well it forecasts.

    Args:
        output: Folder of models; the service serves it when LEADTIME_MODELS names it.
        name: The model's name. The file's name when not given.
        epochs: Most passes over the training windows, 60 when not given; fitting stops earlier when validation no
            longer improves.
        learning_rate: The highest one that is reached, 0.002 when not given; `auto` finds one by a short sweep first.
        seeds: Networks that are fitted, from SEED and the seeds after it, and forecast together; 1 when not given.
        combine: What is made of the forecasts of several networks at each step: their mean or their median.
        jobs: Networks that are fitted at a time, where they are several; one for each core when not given. What comes
            out does not depend on it.
        resume: Go on from an interrupted run of the same data and settings.
    """
    table, config = given.read(
        {
            "name": name,
            "fitting": {"epochs": epochs, "learning_rate": learning_rate},
            "ensemble": {"seeds": seeds, "combine": combine},
        }
    )
    quieten()
    from training.pipeline import REPORT_NAME, train
    from training.progress import Bars

    with Bars(Console(stderr=True)) as bars:
        trained = train(table, config, output, resume=resume, told=bars, jobs=jobs)
    shown = Console()
    show_scores(shown, trained.metadata)
    for file in (FILE_NAME, REPORT_NAME):
        say(shown, f"wrote {trained.folder / file}")
