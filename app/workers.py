"""A worker: a process of gunicorn's making with one single-process Sanic server in it.

Sanic's own manager does neither restart a dead worker nor drain without losing connections, so it is not used.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final, cast

import uvloop
from gunicorn.workers.base import Worker
from loguru import logger

from app.core.process.output import Output
from app.core.process.settings import GatewaySettings
from app.core.process.telemetry import configure
from app.doorway import Doorway
from app.drain import Patience, drain
from app.listener import BACKLOG
from app.server import create_app, sweep
from app.shared_mark import SharedMark

if TYPE_CHECKING:
    from app.arbiter import GatewayApplication

HEARTBEAT_SECONDS: Final = 1.0
COLLECT_OBJECTS: Final = 20_000
BOOT_PAUSE_SECONDS: Final = 1.0
"""Before a worker that broke ends: the arbiter replaces it at once, and must not do so hundreds of times a second."""


class GatewayWorker(Worker):
    """One process: a uvloop, a Sanic server on the shared listener, a heartbeat for the arbiter.

    `is_serving` and `is_leaving` are for the arbiter: whether requests are answered here yet, and whether soon no more.
    """

    def __init__(self, *values: Any, **options: Any) -> None:
        super().__init__(*values, **options)
        self.is_serving = SharedMark()
        self.is_leaving = SharedMark()

    @property
    def _application(self) -> GatewayApplication:
        return cast("GatewayApplication", self.app)

    def init_signals(self) -> None:
        """Default dispositions until the loop takes over: what arrives before there are requests may end us."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):  # sent to a whole group, meant for the arbiter
            signal.signal(number, signal.SIG_IGN)

    def init_process(self) -> None:
        """gunicorn would end the whole gateway if this raised: what fails now may work in a second."""
        try:
            super().init_process()
        except Exception:  # noqa: BLE001 - the arbiter sees the exit status, people see the log
            logger.exception("worker ended by an error")
            time.sleep(BOOT_PAUSE_SECONDS)
            sys.exit(1)
        finally:
            self._application.output.close()

    def run(self) -> None:
        self.notify()  # before that the arbiter would wait for ever
        settings, output = self._application.settings, self._application.output
        configure(settings.log_level, settings.log_format, output.write)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve(settings, output))

    async def _serve(self, settings: GatewaySettings, output: Output) -> None:
        loop = asyncio.get_running_loop()
        stop, hurry = self._on_signals()
        tasks = [loop.create_task(self._beat(stop))]
        app = create_app(settings, output.write)
        listener = cast(Any, self.sockets[0]).sock
        doorway = Doorway(listener)
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
        doorway.is_open_with(server.server, server.connections)
        self.is_serving.set()
        tasks += [loop.create_task(each) for each in (sweep(server.connections), doorway.watch())]
        first = self.age == 1  # later ones are its siblings, or replace one that died
        url = f"http://localhost:{settings.port}"
        logger.info(f"🚀 Gateway server starting on {url}" if first else f"worker {self.age} serves {url}")
        await stop.wait()
        self.is_leaving.set()
        patience = Patience(settings.shutdown_seconds, settings.shutdown_delay_seconds, hurry)
        await drain(app, server, doorway, patience, lambda: self._application.is_ending.is_set or self._is_orphan)
        for task in tasks:
            task.cancel()

    def _on_signals(self) -> tuple[asyncio.Event, asyncio.Event]:
        """Set by the signals to stop, and by those of them that want it quickly: a person's, not a platform's."""
        loop, stop, hurry = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        for number in (signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, _set, hurry, stop)
        return stop, hurry

    @property
    def _is_orphan(self) -> bool:
        return os.getppid() != self.ppid

    async def _beat(self, stop: asyncio.Event) -> None:
        """Tells the arbiter that the loop turns; stops when the arbiter is gone."""
        while True:
            self.notify()
            if self._is_orphan and not stop.is_set():
                logger.warning("the arbiter is gone; stopping")
                stop.set()
            await asyncio.sleep(HEARTBEAT_SECONDS)


def _set(*events: asyncio.Event) -> None:
    for event in events:
        event.set()


def _spare_the_collector() -> None:
    """What is here now stays, so the garbage collector need not look at it again; and requests leave it no cycles.

    Its default (every 700 objects) took a tenth of a worker's time (docs/performance.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_OBJECTS, 20, 50)
