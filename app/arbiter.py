"""Over the workers: gunicorn's arbiter forks, watches and replaces them; here is what it does otherwise for us.

It replaces workers one by one on SIGHUP with the settings read anew, keeps up the number that serve while others end,
survives a system that has no descriptor or process to give, and ignores signals that promise what we cannot do.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any, Final, cast

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from loguru import logger

from app.core.process.output import Output
from app.core.process.settings import GatewaySettings, SettingsError, load
from app.core.process.telemetry import configure
from app.shared_mark import SharedMark
from app.workers import GatewayWorker

HANG_SECONDS: Final = 10
"""A worker whose loop stood still for so long is replaced: SIGABRT first, SIGKILL a second later."""
MARGIN_SECONDS: Final = 3
"""What the arbiter waits beyond SHUTDOWN_TIMEOUT before it kills: closing pools and flushing the log take time too."""
MEMORY_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - mkstemp makes the file, and unlinks it at once


class GatewayApplication(BaseApplication):
    """gunicorn's view of us: its configuration in one place, nothing read from its environment or files.

    `is_ending` tells the workers that all of them end, not one.
    """

    def __init__(self, settings: GatewaySettings, listener: socket.socket, output: Output) -> None:
        self.settings = settings
        self.output = output
        self.is_ending = SharedMark()
        self._bind = (
            f"fd://{listener.detach()}"  # gunicorn makes it its own; ours would keep the port open in the drain
        )
        super().__init__()

    def load_config(self) -> None:
        values = {
            "bind": self._bind,
            "workers": self.settings.workers,
            "worker_class": GatewayWorker,
            "worker_tmp_dir": _heartbeat_folder(),
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
        GatewayArbiter(self).run()


def _heartbeat_folder() -> str:
    """In memory where there is some: a disk that is full or hangs must not look like a worker that does."""
    return str(MEMORY_FOLDER) if os.access(MEMORY_FOLDER, os.W_OK) else tempfile.gettempdir()


class GatewayArbiter(Arbiter):
    """One process over the workers. Started by `run`, ended by SIGTERM, SIGINT and SIGQUIT."""

    def __init__(self, app: GatewayApplication) -> None:
        super().__init__(app)
        self._outdated_age = 0

    @property
    def _workers(self) -> list[GatewayWorker]:
        return sorted(cast("dict[int, GatewayWorker]", self.WORKERS).values(), key=lambda worker: worker.age)

    # --- replacing ---

    def reload(self) -> None:
        """SIGHUP: reads the settings anew; `manage_workers` then replaces the workers. A mistake changes nothing."""
        application = cast(GatewayApplication, self.app)
        if (settings := _read_anew(application.settings)) is None:
            return
        application.settings = settings
        configure(settings.log_level, settings.log_format, application.output.write)
        application.reload()
        self.setup(application)
        self._outdated_age = self.worker_age
        logger.info(f"SIGHUP: the settings were read anew, replacing {self.num_workers} workers")

    def manage_workers(self) -> None:
        """As many workers as there should be. Outdated ones end as soon as others serve in their place."""
        staying = [worker for worker in self._workers if not worker.is_leaving.is_set]
        current = [worker for worker in staying if worker.age > self._outdated_age]
        for _ in range(self.num_workers - len(current)):
            if not self.spawn_worker():
                break
        outdated = [worker for worker in staying if worker.age <= self._outdated_age]
        outdated.sort(key=lambda worker: worker.is_serving.is_set)  # those that do not even serve yet, first
        surplus = len(outdated) + sum(worker.is_serving.is_set for worker in current) - self.num_workers
        for worker in outdated[: max(0, surplus)]:
            worker.is_leaving.set()
            self.kill_worker(cast(int, worker.pid), signal.SIGTERM)

    def spawn_worker(self) -> int:
        """The new worker's process id, or 0 if the system has none to give now; it is tried again every second."""
        try:
            return int(super().spawn_worker())
        except OSError as error:
            if os.getpid() != self.pid:  # a worker that failed must not go on as a second arbiter
                os._exit(1)
            logger.error(f"a worker cannot be started: {error.strerror or error}")
            return 0

    # --- the end ---

    def stop(self, graceful: bool = True) -> None:
        cast(GatewayApplication, self.app).is_ending.set()
        super().stop(graceful)

    # --- what we cannot do ---

    def _ignore(self, name: str, reason: str) -> None:
        logger.warning(f"{name} is ignored: {reason}")

    def handle_usr2(self) -> None:
        self._ignore("SIGUSR2", "a new version is started beside this one, or in its place")

    def handle_ttin(self) -> None:
        self._ignore("SIGTTIN", "the number of workers is WEB_CONCURRENCY, which their share of the limits depends on")

    def handle_ttou(self) -> None:
        self._ignore("SIGTTOU", "the number of workers is WEB_CONCURRENCY, which their share of the limits depends on")


def _read_anew(old: GatewaySettings) -> GatewaySettings | None:
    """The settings as they are now, or None after a line in the log for each reason why they will not do."""
    try:
        settings = load(GatewaySettings)
    except SettingsError as failure:
        problems = failure.problems
    else:
        if settings.port == old.port:
            return settings
        problems = (f"PORT: cannot change from {old.port} to {settings.port} without a restart",)
    for problem in problems:
        logger.error(f"Failed to load configuration: {problem}")
    logger.error("SIGHUP: nothing was changed")
    return None


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
