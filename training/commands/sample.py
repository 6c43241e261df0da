"""`sample`: generated series to try training with."""

import sys
from pathlib import Path
from typing import Literal

from training.errors import OutputError


def sample(which: Literal["lab", "panel", "shop"], *, output: Path | None = None, seed: int = 0) -> None:
    """Write generated example series as CSV, to try training with.

    Args:
        which: `lab`: one daily series with a yearly season, to be fitted with --season 365 --context 400 --horizon 24,
            since from daily dates `fit` infers a season of a week; `panel`: hourly demand of twelve sites, in long
            form; `shop`: daily sales with the price and the promotions that they hang on.
        output: File to write; standard output when not given.
        seed: Seed of the panel and of the shop. The lab series is always the same.
    """
    from training.synthetic import lab, panel, shop

    made = lab() if which == "lab" else panel(seed) if which == "panel" else shop(seed)
    text = made.to_csv(index=False)
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror}") from None
