"""The errors of the training package; each message names the place and the mend, and never repeats a value.

TrainingError
├── ConfigError    a configuration key is unknown or holds what it cannot hold
├── DataError      the data cannot be fitted on: missing, unreadable, irregular, too short, ...
├── Interrupted    the run was interrupted; the message says how to go on
├── FittingError   a network has diverged, or the process that fitted it ended before it was done
├── ExportError    the network cannot be written as an artifact that computes what it computes
└── OutputError    the output folder cannot hold the artifact
"""


class TrainingError(Exception):
    """The root of the errors that end a training command with a message instead of a traceback."""


class ConfigError(TrainingError):
    """A configuration key is unknown or holds what it cannot hold."""


class DataError(TrainingError):
    """The data cannot be used as they are."""


class FittingError(TrainingError):
    """A network has diverged, or the process that fitted it ended before it was done."""


class ExportError(TrainingError):
    """The exported graph is not what the network is."""


class Interrupted(TrainingError):
    """Somebody stopped the run."""


class OutputError(TrainingError):
    """The output folder cannot hold the artifact."""
