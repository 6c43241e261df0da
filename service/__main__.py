"""`python -m service`: answer forecasts over HTTP, with settings from `LEADTIME_*` environment variables.

`python -m service keys new NAME` makes an API key, `signing-keys new NAME` a key to sign models with, and
`sign KEY MODEL` signs one.
"""

import asyncio
import logging
import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from logging.config import dictConfig
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Final, NoReturn

from service.errors import KeysError, SettingsError, SigningError
from service.keys import SCOPES, add_key, read_keys
from service.limits import FORM
from service.listeners import allow_files, bind, url_of
from service.log import log_configuration
from service.otel import is_asked_for
from service.settings import PREFIX, Settings
from service.signing import make_signing_key, read_signing_keys, sign
from service.starter import Forker, Spawner
from service.supervisor import FAILED, Patience, Supervisor

_USAGE_ERROR: Final = 2
_COMMANDS: Final = ("keys", "signing-keys", "sign")
_OTHER_FILES: Final = 1024
"""Files that are open beside connections, those included that are about to be refused: models, libraries."""

_log: Final = logging.getLogger("leadtime.service")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service until it is told to stop, or a command; return the exit code: 2 where something is wrong."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] not in (*_COMMANDS, "-h", "--help"):
        sys.stderr.write(
            "leadtime: it takes no arguments but `keys`, `signing-keys` and `sign`: set LEADTIME_* environment "
            "variables instead\n"
        )
        return _USAGE_ERROR
    try:
        if not arguments:
            return _run()
        options = _parser().parse_args(arguments)
        options.run(options)
    except (KeysError, SettingsError, SigningError) as error:
        sys.stderr.write(f"leadtime: {error}\n")
        return _USAGE_ERROR
    return 0


def _run() -> int:
    # Until there is something to be finished, a stop is just the end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    if sys.platform != "win32":
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who ignores it is not told how processes ended
    settings = Settings.from_environment(os.environ)
    if settings.keys is not None:
        read_keys(settings.keys)  # workers read it again; what is wrong with it is told at once
    if settings.signing_keys is not None:
        read_signing_keys(settings.signing_keys)
    is_asked_for(os.environ)
    tls = settings.tls
    if tls is not None:
        tls.context()
    allow_files(2 * settings.max_connections + _OTHER_FILES)
    with TemporaryDirectory(prefix="leadtime-") as folder:
        counts = _writable(settings.metrics or Path(folder))
        # The server reads its settings from the environment, in this process or in others.
        os.environ[f"{PREFIX}METRICS"] = str(counts)
        if settings.workers > 1 and sys.platform != "win32":
            return _supervise(settings, counts)
        from service.worker import serve  # only now: a wrong setting is told at once

        return serve(settings)


def _writable(folder: Path) -> Path:
    """The folder of the workers' counts, made where there is none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SettingsError(f"{PREFIX}METRICS: nothing can be written there: {error.strerror}") from None
    return folder


def _supervise(settings: Settings, counts: Path) -> int:
    """Serve with several processes, whose first one is this."""
    dictConfig(log_configuration(settings.log_level, settings.log_format))
    try:
        listeners = bind(settings.host, settings.port, settings.workers)
    except OSError as error:
        _log.error(error)
        return FAILED
    scheme = "http" if settings.tls is None else "https"
    _log.info("listening on %s, with %d workers", url_of(listeners[0], scheme), settings.workers)
    patience = Patience(settings.notice_seconds, settings.drain_seconds, settings.hang_seconds)
    spawner = Spawner([sys.executable, "-m", "service.worker"], listeners)
    forker = Forker([sys.executable, "-m", "service.forkserver"], listeners, spawner)
    return asyncio.run(Supervisor(forker, listeners, settings.workers, patience, counts).run())


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE_ERROR, f"leadtime: {message}\n")


def _parser() -> ArgumentParser:
    parser = _Parser(
        "python -m service",
        description="Answer forecasts over HTTP, with settings from LEADTIME_* environment variables.",
    )
    commands = parser.add_subparsers(dest="command", metavar="")
    _describe_keys(commands.add_parser("keys", help="make API keys"))
    _describe_signing_keys(commands.add_parser("signing-keys", help="make keys to sign models with"))
    _describe_sign(commands.add_parser("sign", help="sign models"))
    return parser


def _describe_keys(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="", required=True)
    new = actions.add_parser("new", help="make a key, print it once, and put its hash into a file")
    new.add_argument("name", help="what the key is called in the file and in the log")
    new.add_argument(
        "--scopes",
        nargs="+",
        choices=SCOPES,
        default=["forecast"],
        metavar="SCOPE",
        help=f"what it may be used for, of {', '.join(SCOPES)}; otherwise for forecasts alone",
    )
    new.add_argument("--limit", metavar="RATE", help=f"how many requests it may send: {FORM}")
    new.add_argument("--file", type=Path, help=f"the file of keys; otherwise that of {PREFIX}KEYS")
    new.set_defaults(run=_make_key)


def _describe_signing_keys(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="", required=True)
    new = actions.add_parser("new", help="make a key, and put its private and its public part into two files")
    new.add_argument("name", help="what the files are called")
    new.add_argument("--folder", type=Path, default=Path(), help="where they are put; otherwise here")
    new.set_defaults(run=_make_signing_key)


def _describe_sign(parser: ArgumentParser) -> None:
    parser.add_argument("key", type=Path, help="the file of the private key")
    parser.add_argument(
        "models", type=Path, nargs="+", metavar="model", help="a model.onnx, or the folder that it is in"
    )
    parser.set_defaults(run=_sign)


def _make_key(options: Namespace) -> None:
    file = options.file or Settings.from_environment(os.environ).keys
    if file is None:
        raise KeysError(f"name the file of keys: --file keys.toml, or {PREFIX}KEYS in the environment")
    secret = add_key(file, options.name, options.scopes, options.limit)
    sys.stderr.write(f"This is the key {options.name}. It is shown this once; {file} has its hash alone:\n")
    sys.stdout.write(f"{secret}\n")


def _make_signing_key(options: Namespace) -> None:
    private, public = make_signing_key(options.folder, options.name)
    sys.stdout.write(
        f"{private} signs models: keep it from whoever may not, the service included.\n"
        f"{public} is what {PREFIX}SIGNING_KEYS needs.\n"
    )


def _sign(options: Namespace) -> None:
    for model in options.models:
        sys.stdout.write(f"{sign(options.key, model)}\n")


if __name__ == "__main__":
    sys.exit(main())
