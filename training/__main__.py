"""The command line of training: `python -m training fit | sweep | tune | backtest | describe | sample`."""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final

from cyclopts import App, CycloptsError
from rich.console import Console

from service.errors import ArtifactError
from training.commands.backtest import backtest
from training.commands.describe import describe
from training.commands.fit import fit
from training.commands.sample import sample
from training.commands.sweep import sweep
from training.commands.terminal import say
from training.commands.tune import tune
from training.errors import ExportError, FittingError, Interrupted, TrainingError

_WRONG, _FAILED, _INTERRUPTED = 2, 1, 130  # exit codes: bad input, a failure of ours, Ctrl-C

app: Final = App(
    name="python -m training",
    help="Fit a stacked LSTM on your own series, and write it as one file that the service forecasts from.",
    version_flags=[],
    result_action="return_value",
)
for _command in (fit, sweep, tune, backtest, describe, sample):
    app.command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 2 for wrong input, 1 for a failed export, 130 when interrupted."""
    errors = Console(stderr=True)
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except Interrupted as error:
        say(errors, str(error))
        return _INTERRUPTED
    except KeyboardInterrupt:
        say(errors, "interrupted: nothing was written")
        return _INTERRUPTED
    except (ExportError, FittingError, ArtifactError) as error:
        say(errors, f"error: {error}")
        return _FAILED
    except (CycloptsError, TrainingError) as error:
        say(errors, f"error: {error}")
        return _WRONG
    except BrokenPipeError:
        # The reader has seen enough; without this the interpreter complains when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _stopped(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stopped)  # a container that is stopped can be taken up again, too
    sys.exit(main())
