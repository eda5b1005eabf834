"""`python -m app`: the public gateway."""

from __future__ import annotations

import sys

from app.core.output import Output
from app.core.settings import GatewaySettings, load_or_exit
from app.core.telemetry import configure
from app.workers import GatewayApplication, listen


def main() -> None:
    """Reads the settings, takes the port, runs the workers. Exit status 1 with one line when either is impossible."""
    settings = load_or_exit(GatewaySettings)
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
