"""`python -m admin`: the internal API. One process: people and a few services use it, never the public."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from typing import Any, Final

import uvloop
from loguru import logger
from sanic.application.state import ApplicationServerInfo
from sanic.http.constants import HTTP

from admin.server import create_app
from app.core.process.output import Output
from app.core.process.settings import AdminSettings, load_or_exit
from app.core.process.telemetry import configure, report_dropped, report_failing

BACKLOG: Final = 128
LOOK_SECONDS: Final = 0.02


def main() -> None:
    """Reads the settings, takes the port, serves until SIGTERM. Exit status 1 with one line when that is impossible."""
    settings = load_or_exit(AdminSettings)
    try:
        listener = listen(settings.admin_host, settings.admin_port)
    except OSError as error:
        sys.exit(
            f"Failed to start: {settings.admin_host} port {settings.admin_port} cannot be used "
            f"({error.strerror or error}); set ADMIN_PORT to a free one"
        )
    with Output() as output, listener:
        configure(settings.log_level, settings.log_format, output.write)
        output.on_dropped, output.on_failing = report_dropped, report_failing
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, listener, output))


def listen(host: str, port: int) -> socket.socket:
    """The listener. Raises OSError when the address cannot be had."""
    [(family, *_, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


async def serve(settings: AdminSettings, listener: socket.socket, output: Output) -> None:
    """Serves until SIGTERM or SIGINT, then lets running requests end."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app = create_app(settings)
    server: Any = await app.create_server(
        sock=listener, backlog=BACKLOG, return_asyncio_server=True, asyncio_server_kwargs={"start_serving": False}
    )
    configure(settings.log_level, settings.log_format, output.write)  # Sanic has put its own handlers back
    # create_server leaves this out, and without it every answer has an empty Alt-Svc field.
    app.state.server_info.append(ApplicationServerInfo({"version": HTTP.VERSION_1}))
    await server.startup()
    await server.before_start()
    await server.start_serving()
    await server.after_start()
    host = f"[{settings.admin_host}]" if ":" in settings.admin_host else settings.admin_host
    logger.info(f"🚀 Admin server starting on http://{host}:{settings.admin_port}")
    await stop.wait()
    app.ctx.services.is_draining = True
    await _drain(server, settings.shutdown_seconds)


async def _drain(server: Any, seconds: float) -> None:
    """No new connections; idle ones end; running requests have `seconds`."""
    await server.before_stop()
    server.server.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while server.connections:
                for connection in list(server.connections):
                    connection.close_if_idle()
                await asyncio.sleep(LOOK_SECONDS)
    for connection in list(server.connections):
        connection.abort()
    await server.after_stop()


if __name__ == "__main__":
    main()
