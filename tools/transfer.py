"""One large body over one connection, and how long it took. Blocking sockets, so that this side costs little."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from tools.plan import Endpoint

BLOCK: Final = bytes(262_144)
SILENCE_SECONDS: Final = 30.0
OnBytes = Callable[[int], None]


class TransferFailed(Exception):
    """The body did not pass whole; the text says what came instead."""


def down(endpoint: Endpoint, size_bytes: int, on_bytes: OnBytes) -> float:
    """GETs `size_bytes` and answers the seconds it took. `on_bytes` hears of every piece. Raises TransferFailed."""
    return _timed(endpoint, lambda connection: _down(connection, endpoint, size_bytes, on_bytes))


def up(endpoint: Endpoint, size_bytes: int, on_bytes: OnBytes) -> float:
    """POSTs `size_bytes` and answers the seconds until the answer came. Raises TransferFailed."""
    return _timed(endpoint, lambda connection: _up(connection, endpoint, size_bytes, on_bytes))


def _timed(endpoint: Endpoint, transfer: Callable[[socket.socket], None]) -> float:
    url = urlsplit(endpoint.url)
    try:
        with socket.create_connection((url.hostname or "", url.port or 80), SILENCE_SECONDS) as connection:
            started = time.perf_counter()
            transfer(connection)
            return time.perf_counter() - started
    except OSError as failure:
        raise TransferFailed(f"{endpoint.name}: {failure or type(failure).__name__}") from failure


def _down(connection: socket.socket, endpoint: Endpoint, size_bytes: int, on_bytes: OnBytes) -> None:
    connection.sendall(_head(endpoint, "GET"))
    left = size_bytes - len(_answer(connection, endpoint))
    buffer = bytearray(len(BLOCK))
    while left > 0:
        count = connection.recv_into(buffer)
        if not count:
            raise TransferFailed(f"{endpoint.name}: the answer ended {left} bytes early")
        left -= count
        on_bytes(count)


def _up(connection: socket.socket, endpoint: Endpoint, size_bytes: int, on_bytes: OnBytes) -> None:
    connection.sendall(_head(endpoint, "POST", f"Content-Length: {size_bytes}\r\n"))
    left = size_bytes
    while left:
        block = BLOCK[:left]
        connection.sendall(block)
        left -= len(block)
        on_bytes(len(block))
    _answer(connection, endpoint)


def _head(endpoint: Endpoint, method: str, fields: str = "") -> bytes:
    url = urlsplit(endpoint.url)
    authorization = f"Authorization: Bearer {endpoint.key}\r\n" if endpoint.key else ""
    return f"{method} {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n{authorization}{fields}\r\n".encode()


def _answer(connection: socket.socket, endpoint: Endpoint) -> bytes:
    """Reads an answer's head, which must be a 200's, and returns what came behind it."""
    received = b""
    while b"\r\n\r\n" not in received and len(received) < len(BLOCK):
        data = connection.recv(len(BLOCK))
        if not data:
            break
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    status = head.partition(b"\r\n")[0].decode("latin-1")
    if " 200" not in status:
        raise TransferFailed(f"{endpoint.name}: expected a 200, got {status or 'nothing'}")
    return rest
