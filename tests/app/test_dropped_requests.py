"""A kept connection that ends in the very moment in which it was chosen: the request in its outbox reached nobody.

A stopped worker finds both when it wakes up, in the order in which they came: the request, then the connection's end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.app.test_backend_failures import reset
from tests.app.test_relay import AUTH
from tests.backend import OK, Backend, Connection, answer_ok
from tests.gateway import Gateway, until

POST = b"POST /order HTTP/1.1\r\n" + AUTH + b"Content-Length: 5\r\n\r\nhello"
CHUNKS = b"POST /order HTTP/1.1\r\n" + AUTH + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
BARE = b"POST /order HTTP/1.1\r\n" + AUTH + b"Content-Length: 0\r\n\r\n"
WARM = b"GET /warm HTTP/1.1\r\n" + AUTH + b"\r\n"
End = Callable[[socket.socket], None]


def close(sock: socket.socket) -> None:
    """With FIN."""
    sock.close()


def say(sock: socket.socket) -> None:
    """Nobody has asked: as an answer to what comes next it would be another's."""
    sock.sendall(OK.replace(b"\r\n\r\nok", b"\r\n\r\nno"))


class Ending:
    """A backend's script: one answer on a connection, whose end then waits for `now`."""

    def __init__(self, end: End) -> None:
        self._end = end
        self._is_due = threading.Event()
        self._has_ended = threading.Event()

    def __call__(self, connection: Connection) -> None:
        connection.read()
        connection.send(OK)
        assert self._is_due.wait(20)
        self._end(connection.socket)
        self._has_ended.set()

    def now(self) -> None:
        self._is_due.set()
        assert self._has_ended.wait(20)


@contextlib.contextmanager
def stopped(gateway: Gateway) -> Iterator[None]:
    """The only worker sees nothing meanwhile."""
    (pid,) = gateway.worker_pids
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "T", "the worker to stand still")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("end", [close, reset, say], ids=["FIN", "RST", "a second answer"])
@pytest.mark.parametrize("request_bytes", [POST, CHUNKS, BARE], ids=["length", "chunks", "bare"])
def test_what_was_never_written_is_sent_once_more(
    request_bytes: bytes, end: End, gateway: Gateway, backend: Backend
) -> None:
    """A POST whose kept connection ends, or speaks, before its first byte is written gets its answer; served once."""
    backend.script = ending = Ending(end)
    with gateway.client() as client:
        assert client.send(WARM).reply().status == 200
        backend.script = answer_ok
        backend.requests.clear()
        with stopped(gateway):
            client.send(request_bytes)
            ending.now()
        reply = client.reply()
        assert (reply.status, reply.body) == (200, b"ok")
        (served,) = backend.requests
        assert served.partition(b"\r\n\r\n")[2] == request_bytes.partition(b"\r\n\r\n")[2]
        line = gateway.access(reply["X-Request-Id"])
        assert (line["method"], line["status"]) == ("POST", 200)


@pytest.mark.parametrize("end", [close, reset], ids=["FIN", "RST"])
def test_what_was_written_is_not(end: End, gateway: Gateway, backend: Backend) -> None:
    """A POST that a backend has read before it ends the connection is answered 502, and is never sent again."""

    def script(connection: Connection) -> None:
        while connection.read():
            if connection.head.startswith(b"POST"):
                end(connection.socket)
                return
            connection.send(OK)

    backend.script = script
    with gateway.client() as client:
        assert client.send(WARM).reply().status == 200
        backend.script = answer_ok
        assert client.send(POST).reply().status == 502
    assert len([head for head in backend.requests if head.startswith(b"POST")]) == 1
