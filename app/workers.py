"""The processes: gunicorn's arbiter starts, watches and restarts them; each runs one single-process Sanic server.

Sanic's own manager does neither restart a dead worker nor drain without losing connections, so it is not used.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import time
from typing import Any, Final, cast

import uvloop
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker
from loguru import logger

from app import descriptors
from app.core.process.output import Output
from app.core.process.settings import GatewaySettings
from app.core.process.telemetry import configure
from app.drain import Doorway, drain
from app.server import create_app, sweep

HEARTBEAT_SECONDS: Final = 1.0
HANG_SECONDS: Final = 10
"""A worker whose loop stood still for so long is replaced."""
COLLECT_OBJECTS: Final = 20_000
BACKLOG: Final = 2_048
MARGIN_SECONDS: Final = 3
"""What the arbiter waits beyond SHUTDOWN_TIMEOUT before it kills: closing pools and flushing the log take time too."""
BOOT_PAUSE_SECONDS: Final = 1.0
"""Before a worker that broke ends: the arbiter replaces it at once, and must not do so hundreds of times a second."""


class GatewayApplication(BaseApplication):
    """gunicorn's view of us: its configuration in one place, nothing read from its environment or files."""

    def __init__(self, settings: GatewaySettings, listener: socket.socket, output: Output) -> None:
        self.settings = settings
        self.output = output
        self._bind = (
            f"fd://{listener.detach()}"  # gunicorn makes it its own; ours would keep the port open in the drain
        )
        super().__init__()

    def load_config(self) -> None:
        values = {
            "bind": self._bind,
            "workers": self.settings.workers,
            "worker_class": GatewayWorker,
            "timeout": HANG_SECONDS,
            "graceful_timeout": int(self.settings.shutdown_seconds) + MARGIN_SECONDS,
            "control_socket_disable": True,
            "logger_class": ArbiterLog,
            "proc_name": "saas-gateway",
        }
        for name, value in values.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return self

    def run(self) -> None:
        Arbiter(self).run()


class ArbiterLog:
    """gunicorn's log as ours. Its running commentary is for debugging; what went wrong is for everybody."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self._log = logging.getLogger("gunicorn.error")

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg

    def info(self, message: str, *values: Any, **options: Any) -> None:
        self._log.debug(message, *values, **options)

    def __getattr__(self, name: str) -> Any:
        if name in ("reopen_files", "close_on_exec"):
            return lambda *_: None
        return getattr(self._log, name)


class GatewayWorker(Worker):
    """One process: a uvloop, a Sanic server on the shared listener, a heartbeat for the arbiter."""

    def init_signals(self) -> None:
        """Default dispositions until the loop takes over: what arrives before there are requests may end us."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # the arbiter passes a log rotation on; we have nothing to reopen

    def run(self) -> None:
        application = cast(GatewayApplication, self.app)
        settings, output = application.settings, application.output
        configure(settings.log_level, settings.log_format, output.write)
        output.on_dropped = lambda count: logger.warning(f"{count} log lines were dropped: standard output is too slow")
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve(settings, output))
        except Exception:  # noqa: BLE001 - the arbiter sees the exit status, people see the log
            logger.exception("worker ended by an error")
            time.sleep(BOOT_PAUSE_SECONDS)
            sys.exit(1)
        finally:
            output.close()

    async def _serve(self, settings: GatewaySettings, output: Output) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, stop.set)
        descriptors.make_room(settings.connections_max)
        app, doorway = create_app(settings, output.write), Doorway()
        listener = cast(Any, self.sockets[0]).sock
        server: Any = await app.create_server(
            sock=listener,
            protocol=cast(Any, doorway),
            backlog=BACKLOG,
            asyncio_server_kwargs={"start_serving": False},
        )
        configure(settings.log_level, settings.log_format, output.write)  # Sanic has put its own handlers back
        await server.startup()
        await server.before_start()
        _spare_the_collector()
        await server.start_serving()
        await server.after_start()
        tasks = [loop.create_task(sweep(server.connections)), loop.create_task(self._beat(stop))]
        first = self.age == 1  # later ones are its siblings, or replace one that died
        url = f"http://localhost:{settings.port}"
        logger.info(f"🚀 Gateway server starting on {url}" if first else f"worker {self.age} serves {url}")
        await stop.wait()
        await drain(app, server, doorway, listener, settings.shutdown_seconds)
        for task in tasks:
            task.cancel()

    async def _beat(self, stop: asyncio.Event) -> None:
        """Tells the arbiter that the loop turns; stops when the arbiter is gone."""
        while True:
            self.notify()
            if os.getppid() != self.ppid:
                logger.warning("the arbiter is gone; stopping")
                stop.set()
            await asyncio.sleep(HEARTBEAT_SECONDS)


def _spare_the_collector() -> None:
    """What is here now stays, so the garbage collector need not look at it again; and requests leave it no cycles.

    Its default (every 700 objects) took a tenth of a worker's time (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_OBJECTS, 20, 50)


def listen(port: int) -> socket.socket:
    """The public listener, shared by all workers. Raises OSError when the port cannot be had."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("0.0.0.0", port))  # noqa: S104 - the public gateway is for everybody
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
