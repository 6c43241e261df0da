"""`python -m service`: answer forecasts over HTTP, with settings from `LEADTIME_*` environment variables."""

import os
import signal
import sys
from contextlib import suppress
from tempfile import TemporaryDirectory
from typing import Final

from service.errors import SettingsError
from service.settings import PREFIX, Settings

_USAGE_ERROR: Final = 2


def main() -> int:
    """Run the service until it is told to stop; return the exit code: 2 where a setting is wrong or not one."""
    # After a stop that was asked for, the server raises its signal anew; that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if sys.argv[1:]:
        sys.stderr.write("leadtime: it takes no arguments: set LEADTIME_* environment variables instead\n")
        return _USAGE_ERROR
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"leadtime: {error}\n")
        return _USAGE_ERROR
    with TemporaryDirectory(prefix="leadtime-") as folder:
        # Workers are processes of their own, which read their settings from the environment.
        os.environ.setdefault(f"{PREFIX}METRICS", folder)
        return _serve(settings)


def _serve(settings: Settings) -> int:
    from uvicorn import Config  # only now: a wrong setting is told at once

    from service.log import log_configuration
    from service.protocol import BoundedProtocol
    from service.server import serve

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
        log_config=log_configuration(settings.log_level),
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
