"""The scores that an artifact carries, as a table for a terminal."""

from rich.console import Console
from rich.table import Table

from service.artifact import Metadata, Scores
from training.commands.terminal import say


def show_scores(console: Console, metadata: Metadata) -> None:
    """Print how the model did in its training run, beside references."""
    scores = metadata.backtest
    if scores is None:
        say(console, "no backtest")
        return
    grid = Table("method", title=f"{metadata.name}, version {metadata.version}: {scores.origins} held-out origins")
    for heading in ("MAE, 1 step", f"MAE, {scores.horizon} steps", "RMSE", "sMAPE, %", "MASE"):
        grid.add_column(heading, justify="right")
    for method, far in scores.multi_step.items():
        grid.add_row(method.replace("_", " "), _number(scores.one_step[method].mae), *_numbers(far))
    console.print(grid)
    say(console, scores.verdict)


def _numbers(scores: Scores) -> list[str]:
    return [_number(value) for value in (scores.mae, scores.rmse, scores.smape, scores.mase)]


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if value < 9999.5 else f"{value:,.0f}"  # no powers of ten
