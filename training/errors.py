"""The errors of the data side of training; each message names the place and the mend, and never repeats a value.

    TrainingError
    ├── DataError      the data cannot be fitted on: missing, unreadable, irregular, too short, ...
    └── OutputError    the output folder cannot hold the artifact
"""


class TrainingError(Exception):
    """The root of the errors that end a training command with exit code 2."""


class DataError(TrainingError):
    """The data cannot be used as they are."""


class OutputError(TrainingError):
    """The output folder cannot hold the artifact."""
