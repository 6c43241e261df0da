"""`python -m service`: answer forecasts over HTTP, with settings from `LEADTIME_*` environment variables.

`python -m service keys new NAME` makes an API key.
"""

import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NoReturn

from service.errors import KeysError, SettingsError
from service.keys import SCOPES, add_key, read_keys
from service.limits import FORM
from service.settings import PREFIX, Settings
from service.tls import Tls

_USAGE_ERROR: Final = 2
_OTHER_FILES: Final = 1024
"""Files that are open beside connections, those included that are about to be refused: models, libraries."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service until it is told to stop, or make a key; return the exit code: 2 where something is wrong."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] not in ("keys", "-h", "--help"):
        sys.stderr.write("leadtime: it takes no arguments but `keys`: set LEADTIME_* environment variables instead\n")
        return _USAGE_ERROR
    try:
        return _make_key(_parser().parse_args(arguments)) if arguments else _run()
    except (KeysError, SettingsError) as error:
        sys.stderr.write(f"leadtime: {error}\n")
        return _USAGE_ERROR


def _run() -> int:
    # After a stop that was asked for, the server raises its signal anew; that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = Settings.from_environment(os.environ)
    if settings.keys is not None:
        read_keys(settings.keys)  # workers read it again; what is wrong with it is told at once
    tls = settings.tls
    if tls is not None:
        tls.context()
    with TemporaryDirectory(prefix="leadtime-") as folder:
        # Workers are processes of their own, which read their settings from the environment.
        os.environ.setdefault(f"{PREFIX}METRICS", folder)
        return _serve(settings, tls)


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE_ERROR, f"leadtime: {message}\n")


def _parser() -> ArgumentParser:
    parser = _Parser(
        "python -m service",
        description="Answer forecasts over HTTP, with settings from LEADTIME_* environment variables.",
    )
    commands = parser.add_subparsers(dest="command", metavar="")
    keys = commands.add_parser("keys", help="make API keys").add_subparsers(dest="action", metavar="", required=True)
    new = keys.add_parser("new", help="make a key, print it once, and put its hash into a file")
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
    return parser


def _make_key(options: Namespace) -> int:
    file = options.file or Settings.from_environment(os.environ).keys
    if file is None:
        raise KeysError(f"name the file of keys: --file keys.toml, or {PREFIX}KEYS in the environment")
    secret = add_key(file, options.name, options.scopes, options.limit)
    sys.stderr.write(f"This is the key {options.name}. It is shown this once; {file} has its hash alone:\n")
    sys.stdout.write(f"{secret}\n")
    return 0


def _serve(settings: Settings, tls: Tls | None) -> int:
    from uvicorn import Config  # only now: a wrong setting is told at once

    from service.log import log_configuration
    from service.protocol import BoundedProtocol
    from service.server import allow_files, serve

    allow_files(2 * settings.max_connections + _OTHER_FILES)
    config = Config(
        "service.app:application_from_environment",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        ssl_context_factory=None if tls is None else tls.context,
        log_config=log_configuration(settings.log_level, settings.log_format),
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.drain_seconds,
    )
    with suppress(KeyboardInterrupt):
        return serve(config)
    return 0


if __name__ == "__main__":
    sys.exit(main())
