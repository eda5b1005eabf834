"""Bytes for many connections, written one right after the other when everything else of the loop's turn is done.

Who is written to wakes up, answers and sleeps again, and waking a sleeper is the dearest part of a write. With all of a
turn's writes in a row most of them meet somebody who is still awake: a fifth of a request's cost (docs/performance.md).
"""

from __future__ import annotations

import asyncio


class Outbox:
    """Shared by the connections of one loop. In order; what is for a connection that has ended meanwhile is dropped.

    Who closes, half-closes or gives away a transport calls `flush` before.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Takes what is to be sent soon."""
        if not self._waiting:
            self._loop.call_soon(self.flush)
        self._waiting.append((transport, data))

    def flush(self) -> None:
        """Sends what is here now."""
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            try:
                if not transport.is_closing():
                    transport.write(data)
            except Exception as error:  # noqa: BLE001 - ends one connection: what the others were sent must not be lost
                transport.abort()
                self._loop.call_exception_handler({"message": "a write failed", "exception": error})
