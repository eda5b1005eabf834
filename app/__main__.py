"""`python -m app`: the public gateway."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from app.core.process.output import Output
from app.core.process.settings import GatewaySettings, load_or_exit
from app.core.process.telemetry import configure, report_dropped, report_failing
from app.descriptors import raise_limit
from app.listener import listen

if TYPE_CHECKING:
    from app.arbiter import GatewayApplication


def main() -> None:
    """Reads the settings, takes the port, runs the workers. Exit status 1 with one line when either is impossible."""
    settings = load_or_exit(GatewaySettings)
    application = _application()
    raise_limit()
    try:
        listener = listen(settings.port)
    except OSError as error:
        sys.exit(
            f"Failed to start: port {settings.port} cannot be used ({error.strerror or error}); set PORT to a free one"
        )
    output = Output()
    output.on_dropped, output.on_failing = report_dropped, report_failing
    configure(settings.log_level, settings.log_format, output.write)
    try:
        application(settings, listener, output).run()
    finally:
        output.close()


def _application() -> type[GatewayApplication]:
    """Imported without WEB_CONCURRENCY, which gunicorn reads while it is imported, and breaks on what is no number."""
    kept = os.environ.pop("WEB_CONCURRENCY", None)
    from app.arbiter import GatewayApplication

    if kept is not None:
        os.environ["WEB_CONCURRENCY"] = kept  # SIGHUP reads the settings anew
    return GatewayApplication


if __name__ == "__main__":
    main()
