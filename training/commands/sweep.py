"""`sweep`: the losses at rising learning rates."""

from functools import partial
from pathlib import Path

from rich.console import Console

from training.commands.given import NOTHING_GIVEN, Given, prepared
from training.commands.terminal import quieten, say


def sweep(
    *,
    output: Path,
    given: Given = NOTHING_GIVEN,
    lowest: float = 1e-8,
    highest: float | None = None,
    epochs: int = 100,
    steps: int = 5,
) -> None:
    """Fit at a rate that rises exponentially by epoch, and suggest a learning rate from how the losses went.

    Args:
        output: Folder for a plot, sweep.png, and the loss at each rate, sweep.csv.
        lowest: The first rate.
        highest: The last rate. When not given, 1e-3 after the epochs asked for; where the loss has not turned by then,
            the sweep goes on at the same pace.
        epochs: How many rates there are from the lowest to the highest; with the usual ones the rate rises tenfold in
            20 epochs. The sweep ends earlier where the loss diverges.
        steps: Batches of each epoch, the same ones in all.
    """
    quieten()
    from training.pipeline import without_messages
    from training.progress import Bars

    table, config = given.read({})
    with without_messages():
        from training import sweep as sweeping
    usual = sweeping.Range()
    if highest is None:
        rates = sweeping.Range(lowest, usual.highest, epochs, steps, usual.beyond)
    else:
        rates = sweeping.Range(lowest, highest, epochs, steps, beyond=highest)
    sweeping.check(rates)
    panel, config, parts = prepared(table, config)
    with Bars(Console(stderr=True)) as bars:
        for note in panel.notes:
            bars.say(note)
        found = sweeping.sweep(panel, parts, config, rates, partial(bars.stage, "learning rates"))
    shown = Console()
    rate = "no learning rate is suggested" if found.suggested is None else f"learning rate {found.suggested:g}"
    say(shown, f"{rate}: {found.told}")
    for written in sweeping.write(found, output):
        say(shown, f"wrote {written}")
