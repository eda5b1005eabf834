"""The end of a connection whose client reads slowly: it gets all of its answer, however long that takes it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.app.inside import serving
from tests.app.test_fast_path_inside import KEY
from tests.backend import Backend, Connection
from tests.eventually import eventually

CLOSE_SECONDS = 0.5
"""In which Sanic's own close lets an answer be read; 60 in a gateway."""
FIRST, REST = b"a" * 100_000, b"b" * 150_000
"""More than a door lets wait for its client, which is 65,536 bytes, and than the sockets between them hold."""
HEALTH = b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n"
LAST = f"GET /a/last HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()


class Worker:
    """A worker's app whose sockets hold little, with one client. The backend says the REST when it may."""

    def __init__(self, may_go_on: threading.Event) -> None:
        self.may_go_on = may_go_on
        self.app: Any = None
        self.port = 0

    def script(self, connection: Connection) -> None:
        connection.read()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(FIRST + REST) + FIRST)
        assert self.may_go_on.wait(20)
        connection.send(REST)

    @property
    def client_lags(self) -> bool:
        return any(not door.can_write for door in self.app.ctx.occupancy._guests)

    @property
    def backend_is_done(self) -> bool:
        return all(peer.is_complete for peer in self.app.ctx.upstream.pool._busy)

    @property
    def has_answered(self) -> bool:
        """Whether all of the answer was written to the client's connection."""
        return not self.app.ctx.upstream.busy_count


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    made = Worker(threading.Event())
    with Backend(made.script) as backend:
        environment = {"BACKEND_URLS": f"a={backend.url}", "VALID_API_KEYS": f"{KEY}:org:premium"}
        async with serving("slow-readers", environment, lambda _: None) as (made.app, listener):
            made.app.config.GRACEFUL_TCP_CLOSE_TIMEOUT = CLOSE_SECONDS
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
            made.port = listener.getsockname()[1]
            yield made


async def read_in_two(worker: Worker, data: bytes) -> tuple[bytes, bytes]:
    """What a client reads until the worker has written everything, and what it gets long after that."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", worker.port))
        await loop.sock_sendall(client, data)
        await eventually(lambda: worker.client_lags)
        worker.may_go_on.set()
        await eventually(lambda: worker.backend_is_done)
        early = late = b""
        while not worker.has_answered:
            early += await loop.sock_recv(client, 4_096)
        await asyncio.sleep(2 * CLOSE_SECONDS)  # as slow as that
        while piece := await loop.sock_recv(client, 65_536):
            late += piece
        return early, late


@pytest.mark.parametrize("after", [b"", HEALTH], ids=["last", "followed"])
async def test_a_last_answer_that_is_read_late_is_whole(worker: Worker, after: bytes) -> None:
    """A client that pauses when its answer only has to be read before the connection ends still gets all of it."""
    early, late = await asyncio.wait_for(read_in_two(worker, LAST + after), 20)
    assert len(early) < len(FIRST + REST) - 65_536
    assert (early + late).partition(b"\r\n\r\n")[2] == FIRST + REST
