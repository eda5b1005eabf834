"""Uploads slower than a byte a second: served within the limits that are set, and no longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.app.test_relay import AUTH
from tests.app.test_upgrade import silent
from tests.backend import Backend, Connection
from tests.gateway import Client, Gateway

SIZED = b"POST /x HTTP/1.1\r\n" + AUTH + b"Content-Length: %d\r\n\r\n"
CHUNKED = b"POST /x HTTP/1.1\r\n" + AUTH + b"Transfer-Encoding: chunked\r\n\r\n"
IDLE_SECONDS, IN_ALL_SECONDS = 2.5, 5.0


@pytest.fixture(scope="module")
def shared_backend() -> Iterator[Backend]:
    with Backend() as backend:
        yield backend


@pytest.fixture(scope="module")
def gateway(shared_backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The backend's time-out is shorter than any pause here: it is no limit on how slow a client may be."""
    environment = {"BACKEND_URLS": f"api={shared_backend.url}", "BACKEND_TIMEOUT": "1"}
    environment |= {"UPLOAD_IDLE_TIMEOUT": f"{IDLE_SECONDS:g}", "UPLOAD_TIMEOUT": f"{IN_ALL_SECONDS:g}"}
    with Gateway(tmp_path_factory.mktemp("gateway"), environment) as running:
        yield running


def pieces(client: Client, pieces: list[bytes], pause_seconds: float) -> None:
    """Each piece after a pause: the client's own slowness."""
    for piece in pieces:
        time.sleep(pause_seconds)
        client.send(piece)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_less_than_a_byte_a_second(is_chunked: bool, gateway: Gateway, backend: Backend) -> None:
    """Two bytes with pauses of more than a second: the backend gets each as it comes, the client gets the answer."""
    arrived: list[int] = []

    def script(connection: Connection) -> None:
        connection.read_head()
        while len(arrived) < 2 and connection.more():
            arrived.append(len(connection.buffer))
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    backend.script = script
    with gateway.client() as client:
        client.send(CHUNKED if is_chunked else SIZED % 2)
        pieces(client, [b"1\r\nx\r\n"] * 2 if is_chunked else [b"x"] * 2, 1.1)
        assert len(arrived) >= 1  # the last may be on its way
        client.send(b"0\r\n\r\n" if is_chunked else b"")
        assert client.reply().status == 200


def test_a_body_that_stops_is_a_408(gateway: Gateway, backend: Backend) -> None:
    """After UPLOAD_IDLE_TIMEOUT without a byte; the backend's connection ends unfinished."""
    ended = threading.Event()

    def script(connection: Connection) -> None:
        connection.read()
        ended.set()

    backend.script = script
    with gateway.client() as client:
        began = time.monotonic()
        reply = client.send(SIZED % 3 + b"x").reply()
        assert (reply.status, reply["Connection"]) == (408, "close")
        assert IDLE_SECONDS <= time.monotonic() - began < IDLE_SECONDS + 8
    assert ended.wait(5)
    assert gateway.access(reply["X-Request-ID"])["status"] == 408


def test_a_body_that_never_ends_is_a_408(gateway: Gateway, backend: Backend) -> None:
    """A byte now and then does not hold a connection for longer than UPLOAD_TIMEOUT."""
    backend.script = silent
    with gateway.client() as client:
        began = time.monotonic()
        client.send(SIZED % 1_000)
        sender = threading.Thread(target=pieces, args=(client, [b"x"] * 6, 0.8))
        sender.start()
        reply = client.reply()
        assert reply.status == 408
        assert IN_ALL_SECONDS <= time.monotonic() - began < IN_ALL_SECONDS + 8
        sender.join(10)


def test_an_answer_that_has_begun_ends_the_limits(gateway: Gateway, backend: Backend) -> None:
    """Two-way streams: while the backend speaks, the client may be slower than the limits on uploads."""

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while b"end" not in connection.buffer:
            connection.send(b"1\r\n.\r\n")
            connection.socket.settimeout(0.1)
            connection.more()
        connection.send(b"0\r\n\r\n")

    backend.script = script
    with gateway.client() as client:
        client.send(SIZED % 4)
        assert b" 200 OK" in (client._until(b"\r\n\r\n") or b"")
        time.sleep(IN_ALL_SECONDS + 0.5)  # longer than either limit
        client.send(b"end.")
        body, is_whole = client._chunked()
        assert is_whole
        assert len(body) > IN_ALL_SECONDS
