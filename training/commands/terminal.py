"""What commands say, and what they keep from being said."""

import logging
import os

from rich.console import Console


def say(console: Console, line: str) -> None:
    """Print a line as it is: no markup, no colours of its own, and no breaks."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def quieten() -> None:
    """Keep TensorFlow's start-up messages from users."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
