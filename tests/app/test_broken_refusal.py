"""Requests that Redis decides together, one of which breaks when it is told: that is its own affair."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from typing import Any

from app.core.model import PLANS
from app.door import DoorProtocol
from tests.app.inside import serving
from tests.core.clients import PATIENT_SECONDS
from tests.eventually import eventually

KEYS = ["sk_test_" + digit * 32 for digit in "ab"]
ROOM = PLANS["basic"].per_minute + PLANS["basic"].burst
"""What a fresh basic organization may do at once."""
REFUSED = 3


def request(key: str) -> bytes:
    """For a service that does not exist: who is admitted is answered without a backend."""
    return f"GET /nowhere HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key}\r\n\r\n".encode()


async def connected(port: int, client: socket.socket) -> None:
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))


async def status(client: socket.socket) -> int:
    got = b""
    while b"\r\n" not in got:
        piece = await asyncio.get_running_loop().sock_recv(client, 65_536)
        assert piece, "the connection ended without an answer"
        got += piece
    return int(got.split(b" ", 2)[1])


async def asked_together(app: Any, port: int, requests: list[bytes]) -> list[int]:
    """The status that each is answered with. All of them arrive in one turn of the loop, in this order."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in requests]
        for client in clients:
            await connected(port, client)
        await eventually(lambda: len(app.ctx.occupancy) == len(clients))
        for client, data in zip(clients, requests, strict=True):
            client.send(data)
        async with asyncio.timeout(10):
            return [await status(client) for client in clients]


async def test_a_refusal_that_breaks_harms_nobody_else_of_its_batch(redis_url: str) -> None:
    """Its request is answered 500; the others of its organization and of the next get the verdicts that Redis gave."""
    broken: list[bytes] = []

    class Breaking(DoorProtocol):
        """Cannot write the first refusal."""

        __slots__ = ()

        def write(self, data: bytes) -> None:
            if data.startswith(b"HTTP/1.1 429 ") and not broken:
                broken.append(data)
                raise ZeroDivisionError
            super().write(data)

    environment = {
        "BACKEND_URLS": "a=http://127.0.0.1:1,b=http://127.0.0.1:1",
        "REDIS_URL": redis_url,
        "VALID_API_KEYS": ",".join(f"{key}:org_{key[-1]}:basic" for key in KEYS),
    }
    async with serving("broken-refusal", environment, lambda _: None, Breaking) as (app, listener):
        await eventually(lambda: app.ctx.limiter.is_exact)
        app.ctx.limiter._watch._tally.deadline_seconds = PATIENT_SECONDS
        requests = [request(KEYS[0])] * (ROOM + REFUSED) + [request(KEYS[1])]
        statuses = await asked_together(app, listener.getsockname()[1], requests)
        assert app.ctx.limiter.batches == 1
        assert len(broken) == 1
    assert Counter(statuses[:-1]) == {404: ROOM, 500: 1, 429: REFUSED - 1}
    assert statuses[-1] == 404
