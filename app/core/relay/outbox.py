"""Bytes for many connections, written one right after the other once the loop has looked at its sockets again.

Who is written to wakes up, answers and sleeps again, and waking a sleeper is the dearest part of a write. With many
writes in a row most of them meet somebody who is still awake: a quarter of a request's cost (docs/performance.md). The
loop does not wait when it looks: who is alone is not held up.
"""

from __future__ import annotations

import asyncio
from typing import Protocol


class Sender(Protocol):
    """Whose bytes they are, where that has to know if they were lost."""

    def note_dropped(self) -> None:
        """Not one byte of a write was sent: the connection had ended before. Must not raise."""


class Outbox:
    """Shared by the connections of one loop. In order; what is for a connection that has ended meanwhile is dropped.

    Who closes, half-closes or gives away a transport calls `flush` before.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[asyncio.Transport, bytes, Sender | None]] = []
        self.flushes = 0
        """So many times everything was sent: what was written since the last time lies here yet."""

    def write(self, transport: asyncio.Transport, data: bytes, sender: Sender | None = None) -> None:
        """Takes what is to be sent soon; `sender` is told if it is dropped instead."""
        if not self._waiting:
            self._loop.call_soon(self._wait_a_turn)
        self._waiting.append((transport, data, sender))

    def _wait_a_turn(self) -> None:
        # What is called soon runs before the loop looks at its sockets again. What these ask for is sent along.
        self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Sends what is here now."""
        self.flushes += 1
        waiting, self._waiting = self._waiting, []
        for transport, data, sender in waiting:
            try:
                if not transport.is_closing():
                    transport.write(data)
                elif sender is not None:
                    sender.note_dropped()
            except Exception as error:  # noqa: BLE001 - ends one connection: what the others were sent must not be lost
                transport.abort()
                self._loop.call_exception_handler({"message": "a write failed", "exception": error})
