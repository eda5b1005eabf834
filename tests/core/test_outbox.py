"""What waits to be written: for each connection in order, and whatever becomes of the others."""

from __future__ import annotations

import asyncio
import socket

import pytest

from app.core.relay.outbox import Outbox


async def test_a_write_that_raises_costs_no_other_connection_its_bytes(caplog: pytest.LogCaptureFixture) -> None:
    """One transport refuses the write: it ends, and what others were sent in the same turn arrives all the same."""
    loop = asyncio.get_running_loop()
    (ours, broken), (mine, healthy) = socket.socketpair(), socket.socketpair()
    with ours, broken, mine, healthy:
        for end in (broken, healthy):
            end.setblocking(False)
        first, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        second, _ = await loop.create_connection(asyncio.Protocol, sock=mine)
        first.write_eof()
        outbox = Outbox(loop)
        outbox.write(first, b"lost")
        outbox.write(second, b"kept")
        assert await asyncio.wait_for(loop.sock_recv(healthy, 16), 5) == b"kept"
        assert first.is_closing()
        assert "a write failed" in caplog.text
        second.close()
