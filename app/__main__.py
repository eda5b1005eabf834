"""`python -m app`: the public gateway."""

from __future__ import annotations

import os
import sys

from app.core.process.output import Output
from app.core.process.settings import GatewaySettings, load_or_exit
from app.core.process.telemetry import configure


def main() -> None:
    """Reads the settings, takes the port, runs the workers. Exit status 1 with one line when either is impossible."""
    settings = load_or_exit(GatewaySettings)
    # gunicorn reads it too, while it is imported, and breaks on what is no number: an empty one, which we take for none
    os.environ["WEB_CONCURRENCY"] = str(settings.workers)
    from app.workers import GatewayApplication, listen

    try:
        listener = listen(settings.port)
    except OSError as error:
        sys.exit(
            f"Failed to start: port {settings.port} cannot be used ({error.strerror or error}); set PORT to a free one"
        )
    output = Output()
    configure(settings.log_level, settings.log_format, output.write)
    try:
        GatewayApplication(settings, listener, output).run()
    finally:
        output.close()


if __name__ == "__main__":
    main()
