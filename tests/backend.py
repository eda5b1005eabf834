"""A backend that the tests write by hand: it keeps the exact bytes that reach it and answers with exact bytes."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Self

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Script = Callable[["Connection"], None]


class Connection:
    """One accepted connection in a thread of its own. `head` and `body` hold the last request that was read."""

    def __init__(self, backend: Backend, sock: socket.socket) -> None:
        self._backend = backend
        self.socket = sock
        self.buffer = b""
        self.head = b""
        self.body = b""

    def more(self) -> bool:
        """Reads what comes next; False at the end of the stream (also a reset)."""
        try:
            data = self.socket.recv(65_536)
        except (ConnectionError, TimeoutError, OSError):
            return False
        self.buffer += data
        return bool(data)

    def read_head(self) -> bool:
        while b"\r\n\r\n" not in self.buffer:
            if not self.more():
                return False
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        self.head = head + b"\r\n\r\n"
        self.body = b""
        return True

    def read_body(self) -> bool:
        """The body's bytes as they were framed (chunked: with its framing, up to the end of the trailers)."""
        if re.search(rb"(?i)\r\ntransfer-encoding: chunked\r\n", self.head):
            while not re.search(rb"(?:^|\r\n)0\r\n(?:[^\r\n]+\r\n)*\r\n$", self.buffer):
                if not self.more():
                    return False
            self.body, self.buffer = self.buffer, b""
            return True
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", self.head)
        count = int(length.group(1)) if length else 0
        while len(self.buffer) < count:
            if not self.more():
                return False
        self.body, self.buffer = self.buffer[:count], self.buffer[count:]
        return True

    def read(self) -> bool:
        """One whole request; False when the gateway hung up instead. What was read is kept by the backend."""
        whole = self.read_head() and self.read_body()
        if whole:
            self._backend.requests.append(self.head + self.body)
        return whole

    def send(self, data: bytes) -> None:
        """Sends; a gateway that has hung up is noted, not raised."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data)


def answer_ok(connection: Connection) -> None:
    """Answers every request with OK, as long as the connection lasts."""
    while connection.read():
        connection.send(OK)


def answer(data: bytes) -> Script:
    """A script that answers every request with the same bytes."""

    def script(connection: Connection) -> None:
        while connection.read():
            connection.send(data)

    return script


class Backend:
    """A listener on a free port; each connection runs `script`. A context manager; `requests`: what was read whole."""

    def __init__(
        self,
        script: Script = answer_ok,
        tls: ssl.SSLContext | None = None,
        family: socket.AddressFamily = socket.AF_INET,
    ) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.accepted = 0
        self._tls = tls
        self._open: list[socket.socket] = []
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        self._listener = socket.create_server((host, 0), family=family, backlog=1024)
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                sock, *_ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.settimeout(30)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            self._open.append(sock)
            with sock:
                self.script(Connection(self, sock))

    def last_head(self) -> bytes:
        return self.requests[-1].partition(b"\r\n\r\n")[0]

    def drop_idle(self) -> None:
        """Ends every connection, so that the next request comes on a new one and runs the script as it is now."""
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        # shutdown wakes the thread in accept(); close alone would leave it, and the port, behind
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_idle()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
