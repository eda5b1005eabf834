"""A gateway as its users run it: `python -m app` as a process, spoken to over sockets."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from tools.embedded import ReservedPort

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_SECONDS = 40.0
STATIC_KEY = "sk_test_abc123"
"""What `Gateway` lets in when it is given no database: organization org_1, premium."""


def until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """Waits for `condition` to be truthy; returns its value. Raises AssertionError naming `what` at the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.01)  # between two looks
    return value


def room_in_this_minute(seconds: float) -> None:
    """Waits for the next UTC minute when less than `seconds` of this one are left: what is counted belongs to one."""
    left = 60 - time.time() % 60
    if left < seconds:
        time.sleep(left + 0.05)


class Reply:
    """One HTTP answer as it came, split: status, header list (names as sent), body (de-chunked)."""

    def __init__(self, head: bytes, body: bytes, is_whole: bool, interim: list[bytes]) -> None:
        self.head = head
        self.body = body
        self.is_whole = is_whole
        self.interim = interim
        status_line, *lines = head.split(b"\r\n")
        self.status = int(status_line.split(b" ")[1])
        self.reason = status_line.split(b" ", 2)[2]
        self.fields = [
            (n.decode(), v.strip().decode("latin-1")) for n, _, v in (line.partition(b":") for line in lines)
        ]

    def all(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field.lower() == name.lower()]

    def __getitem__(self, name: str) -> str:
        """The only value of a header. Raises AssertionError when there is none or several."""
        values = self.all(name)
        assert len(values) == 1, f"{name}: {values} in {self.head!r}"
        return values[0]

    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<Reply {self.status} {self.body[:200]!r}>"


class Client:
    """A raw connection. `send` bytes, `reply` reads one answer exactly, `rest` everything until the end."""

    def __init__(self, port: int, seconds: float = DEADLINE_SECONDS) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self.buffer = b""

    def send(self, data: bytes) -> Self:
        self.socket.sendall(data)
        return self

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65_536)
        except ConnectionError:
            return False
        self.buffer += data
        return bool(data)

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self.buffer:
            if not self._more():
                return None
        before, _, self.buffer = self.buffer.partition(mark)
        return before

    def _exactly(self, count: int) -> tuple[bytes, bool]:
        while len(self.buffer) < count and self._more():
            pass
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data, len(data) == count

    def reply(self, method: str = "GET") -> Reply:
        """The next final answer, with the interim ones before it. AssertionError when the connection ends first."""
        interim: list[bytes] = []
        while True:
            head = self._until(b"\r\n\r\n")
            assert head is not None, f"the connection ended without an answer, after {self.buffer!r}"
            if not re.match(rb"HTTP/1\.1 1\d\d", head):
                return Reply(head, *self._body(head, method), interim)
            interim.append(head)

    def _body(self, head: bytes, method: str) -> tuple[bytes, bool]:
        status = int(head.split(b" ", 2)[1])
        if method == "HEAD" or status in (204, 304):
            return b"", True
        if re.search(rb"(?i)\r\ntransfer-encoding: chunked", head):
            return self._chunked()
        if length := re.search(rb"(?i)\r\ncontent-length: (\d+)", head):
            return self._exactly(int(length.group(1)))
        return self.rest(), True

    def _chunked(self) -> tuple[bytes, bool]:
        body = b""
        while (size := self._until(b"\r\n")) is not None:
            if int(size, 16) == 0:
                self.trailers = []
                while (line := self._until(b"\r\n")) is not None:
                    if not line:
                        return body, True
                    self.trailers.append(line)
                return body, False
            data, whole = self._exactly(int(size, 16))
            body += data
            if not whole or self._exactly(2) != (b"\r\n", True):
                return body, False
        return body, False

    def rest(self) -> bytes:
        """Everything until the other side closes."""
        while self._more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def is_closed(self) -> bool:
        """Whether the other side has closed (waits for it, up to the time-out of the socket)."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Gateway:
    """`python -m app` with exactly the environment given (plus PATH and HOME). A context manager."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *, module: str = "app") -> None:
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        self.folder = folder
        self._lines: list[str] = []
        self._errors: list[str] = []
        self._parsed: list[dict[str, Any]] = []
        self._parsed_to = 0
        self._parsing = threading.Lock()
        self._collectors: list[threading.Thread] = []
        port = str(self.port)
        defaults = {"GATEWAY_PORT": port, "ADMIN_PORT": port, "WEB_CONCURRENCY": "1", "PYTHONPATH": str(ROOT)}
        defaults["SHUTDOWN_DELAY"] = "0"  # no router is there to be told
        if "DATABASE_URL" not in environment:
            defaults["VALID_API_KEYS"] = f"{STATIC_KEY}:org_1:premium"
        kept = {
            name: os.environ[name]
            for name in ("PATH", "HOME", "LANG", "TMPDIR", "GATEWAY_PURE_PYTHON")
            if name in os.environ
        }
        self.environment = {**kept, **defaults, **environment}
        self._module = module

    def start(self, *, wait: bool = True, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE) -> Self:
        """Starts the process in a folder of its own (no .env there); waits until it answers.

        `stdout`, `stderr`: descriptors that its output goes to instead of being collected.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            env=self.environment,
            cwd=self.folder,
            stdout=stdout,
            stderr=stderr,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        for stream, lines in ((self.process.stdout, self._lines), (self.process.stderr, self._errors)):
            if stream is None:
                continue
            self._collectors.append(threading.Thread(target=self._collect, args=(stream, lines), daemon=True))
            self._collectors[-1].start()
        if wait:
            until(lambda: self.answers() or self.process.poll() is not None, "the gateway to answer")
            assert self.process.poll() is None, self.output
        return self

    @staticmethod
    def _collect(stream: Any, lines: list[str]) -> None:
        with stream:
            lines.extend(iter(stream.readline, ""))

    def _catch_up(self) -> None:
        """Once the process has ended, waits until what it said last was read too."""
        if self.process.poll() is not None:
            for collector in self._collectors:
                collector.join(DEADLINE_SECONDS)

    @property
    def output(self) -> str:
        """Standard output and standard error so far; all of it once the process has ended."""
        self._catch_up()
        return "".join(self._lines) + "".join(self._errors)

    def log(self, **fields: Any) -> list[dict[str, Any]]:
        """The JSON lines on standard output so far whose fields equal `fields`; of all of it once it has ended."""
        self._catch_up()
        with self._parsing:  # each line once: whoever polls a long log must not keep the threads around it from running
            lines = self._lines[self._parsed_to :]
            self._parsed_to += len(lines)
            self._parsed += [json.loads(line) for line in lines if line.startswith("{")]
            parsed = self._parsed.copy()
        return [line for line in parsed if all(line.get(name) == value for name, value in fields.items())]

    def access(self, request_id: str) -> dict[str, Any]:
        """The access line of a request, waited for."""
        return until(lambda: self.log(request_id=request_id), f"the log line of {request_id}")[-1]  # type: ignore[no-any-return]

    def answers(self) -> bool:
        with contextlib.suppress(OSError, AssertionError):
            return self.get("/health/live", key=None).status == 200
        return False

    def client(self, seconds: float = DEADLINE_SECONDS) -> Client:
        return Client(self.port, seconds)

    def get(self, target: str = "/", *, key: str | None = STATIC_KEY, method: str = "GET", **fields: str) -> Reply:
        """One request on a connection of its own. Underscores in field names become hyphens."""
        lines = [f"{method} {target} HTTP/1.1", "Host: gateway", "Connection: close"]
        if key is not None:
            lines.append(f"Authorization: Bearer {key}")
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
        return self.ask("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n", method)

    def ask(self, request: bytes, method: str = "GET") -> Reply:
        """Sends exact bytes on a connection of its own and reads one answer."""
        with self.client() as client:
            return client.send(request).reply(method)

    @property
    def worker_pids(self) -> list[int]:
        """The arbiter's children."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self, seconds: float = DEADLINE_SECONDS) -> int:
        """SIGTERM, then the exit status; SIGKILL to the whole group at the deadline."""
        if self.process.poll() is None:
            self.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextlib.contextmanager
def gateways(*made: Gateway) -> Iterator[tuple[Gateway, ...]]:
    """Several gateways at once, all stopped at the end."""
    with contextlib.ExitStack() as stack:
        yield tuple(stack.enter_context(gateway) for gateway in made)
