"""Server-sent events: each at once, for as long as they come, and no longer than somebody listens.

Hours are not waited for. What could end a stream is a timer, and there is one: the backend's, which each byte sets anew
(here to a second). So a stream that outlives it three times outlives it any number of times.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.test_relay import AUTH
from tests.backend import Backend, Connection, Script
from tests.gateway import Gateway, until

EVENTS = b"GET /events HTTP/1.1\r\n" + AUTH + b"Accept: text/event-stream\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def opening(said: bytes = b"") -> Script:
    """A script that opens the stream, says so much, and then nothing until the other side has had enough."""

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(HEAD + said)
        connection.more()

    return script


@pytest.fixture(scope="module")
def shared_backend() -> Iterator[Backend]:
    with Backend() as backend:
        yield backend


@pytest.fixture(scope="module")
def gateway(shared_backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """With every time-out that there is as short as these tests can bear."""
    environment = {
        "BACKEND_URLS": f"api={shared_backend.url}",
        **dict.fromkeys(("BACKEND_TIMEOUT", "UPLOAD_IDLE_TIMEOUT", "UPLOAD_TIMEOUT", "TUNNEL_IDLE_TIMEOUT"), "1.5"),
    }
    with Gateway(tmp_path_factory.mktemp("gateway"), environment) as running:
        yield running


def test_an_event_is_there_before_the_next_is_sent(gateway: Gateway, backend: Backend) -> None:
    """Nothing is held back: the client has each event while the backend still waits to send the next."""
    go = threading.Semaphore(0)

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(HEAD)
        for number in range(3):
            connection.send(chunk(b"data: %d\n\n" % number))
            go.acquire(timeout=10)

    backend.script = script
    with gateway.client() as client:
        assert b"\r\nContent-Type: text/event-stream\r\n" in (client.send(EVENTS)._until(b"\r\n\r\n") or b"")
        for number in range(3):
            event = chunk(b"data: %d\n\n" % number)
            assert client._exactly(len(event)) == (event, True)
            go.release()


def test_the_head_does_not_wait_for_the_first_event(gateway: Gateway, backend: Backend) -> None:
    """A client learns that its stream is open (EventSource's `open`) before there is anything to tell."""
    backend.script = opening()
    with gateway.client() as client:
        assert b" 200 OK" in (client.send(EVENTS)._until(b"\r\n\r\n") or b"")


def test_heartbeats_keep_a_stream_open(gateway: Gateway, backend: Backend) -> None:
    """A comment now and then is enough, however often every time-out has passed meanwhile."""

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(HEAD)
        for _ in range(12):
            time.sleep(0.4)  # the backend's pace
            connection.send(chunk(b":\n\n"))
        connection.send(chunk(b"data: end\n\n") + b"0\r\n\r\n")

    backend.script = script
    began = time.monotonic()
    reply = gateway.ask(EVENTS)
    assert (reply.body, reply.is_whole) == (b":\n\n" * 12 + b"data: end\n\n", True)
    assert time.monotonic() - began > 3 * 1.5


def test_a_stream_that_falls_silent_ends_visibly(gateway: Gateway, backend: Backend) -> None:
    """A backend that hangs is noticed after BACKEND_TIMEOUT: the stream breaks off, and EventSource comes back."""
    backend.script = opening(chunk(b":\n\n"))
    with gateway.client() as client:
        reply = client.send(EVENTS).reply()
        assert (reply.body, reply.is_whole) == (b":\n\n", False)
    line = until(lambda: gateway.log(request_id=reply["X-Request-ID"], level="warn"), "the log to say so")[0]
    assert line["message"].startswith("answer cut short: ")


def test_a_client_that_leaves_ends_the_stream(gateway: Gateway, backend: Backend) -> None:
    """The backend notices at once, not with its next event; the line says what was sent."""
    left = threading.Event()

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(HEAD + chunk(b"data: 1\n\n"))
        connection.more()
        left.set()

    backend.script = script
    with gateway.client() as client:
        head = client.send(EVENTS)._until(b"\r\n\r\n") or b""
        client._until(b"data: 1\n\n")
    assert left.wait(10)
    request_id = head.partition(b"X-Request-ID: ")[2].split(b"\r\n")[0].decode()
    assert gateway.access(request_id)["bytes"] == 9
    assert gateway.log(request_id=request_id, level="warn") == []  # it was not BACKEND_TIMEOUT that ended it


def test_many_listeners_get_each_event(tmp_path: Path) -> None:
    """Two hundred open streams: each gets its event, and all end at the backend when their clients leave."""
    listeners, go = 200, threading.Event()
    gone = threading.Semaphore(0)

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(HEAD)
        go.wait(20)
        connection.send(chunk(b"data: now\n\n"))
        connection.more()
        gone.release()

    with Backend(script) as backend, Gateway(tmp_path / "g", {"BACKEND_URLS": f"api={backend.url}"}) as gateway:
        clients = [gateway.client().send(EVENTS) for _ in range(listeners)]
        for client in clients:
            assert b" 200 OK" in (client._until(b"\r\n\r\n") or b"")
        go.set()
        for client in clients:
            assert client._until(b"\n\n\r\n") == b"b\r\ndata: now"
            client.close()
        assert all(gone.acquire(timeout=10) for _ in clients)
        until(lambda: len(gateway.log(path="/events")) == listeners, "every line")
