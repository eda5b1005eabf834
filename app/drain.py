"""How a worker ends without losing a request: whoever has connected is served, then idle connections end, then all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from loguru import logger
from sanic import Sanic

from app.door import DoorProtocol

LATECOMER_SECONDS: Final = 0.1
"""Before the listener closes, and again before idle connections do: who connects or asks just now is still answered."""
LOOK_SECONDS: Final = 0.02
ENDING_SECONDS: Final = 1.0
"""For handlers that were cut, to log their requests and let go of what they hold."""


class Doorway:
    """Makes each connection's protocol in Sanic's way (its `protocol=`), and remembers how for `take_in`."""

    def __init__(self) -> None:
        self._make: Callable[[], DoorProtocol] | None = None

    def __call__(self, **options: Any) -> DoorProtocol:
        self._make = make = partial(DoorProtocol, **options)
        return make()

    async def take_in(self, latecomers: list[socket.socket]) -> None:
        """Serves connections that the event loop's server did not get to accept."""
        loop = asyncio.get_running_loop()
        for latecomer in latecomers:
            if self._make is None:
                latecomer.close()
                continue
            with contextlib.suppress(OSError):  # gone again already
                await loop.connect_accepted_socket(self._make, latecomer)


async def drain(app: Sanic[Any, Any], server: Any, doorway: Doorway, listener: socket.socket, seconds: float) -> None:
    """No new connections; idle ones end, WebSockets are told to; running requests have `seconds`, then they end too.

    `server` is Sanic's, listening on `listener`.
    """
    app.ctx.is_draining = True
    await server.before_stop()
    await asyncio.sleep(LATECOMER_SECONDS)
    still_open = listener.dup()
    server.server.close()
    await doorway.take_in(_accept_all_and_close(still_open))
    for connection in server.connections:
        connection.is_draining = True  # the answers from now on say that they are the last
    app.ctx.tunnels.drain()
    await asyncio.sleep(LATECOMER_SECONDS)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await _ended(server.connections)
    await _cut(server.connections, seconds)
    await server.after_stop()


def _accept_all_and_close(listener: socket.socket) -> list[socket.socket]:
    """What waits in the accept queue: closing the listener would reset it, and a busy loop lets several wait there.

    What comes between the last accept and the close is lost all the same: Linux has no call that does both at once.
    """
    accepted = []
    with listener, contextlib.suppress(OSError):  # BlockingIOError: the queue is empty
        listener.setblocking(False)
        while True:
            accepted.append(listener.accept()[0])
    for each in accepted:
        each.setblocking(False)
    return accepted


async def _ended(connections: set[DoorProtocol]) -> None:
    """Ends those that are idle or become so; returns when none is left."""
    while connections:
        for connection in list(connections):
            connection.close_if_idle()
        await asyncio.sleep(LOOK_SECONDS)


async def _cut(connections: set[DoorProtocol], seconds: float) -> None:
    """Ends what is left after `seconds`, and waits for the handlers to notice."""
    if not connections:
        return
    logger.warning(f"{len(connections)} requests did not end within {seconds:g} s and were cut")
    handlers = [each.handler for each in connections if each.handler is not None]
    for connection in list(connections):
        connection.reset()
    if handlers:
        await asyncio.wait(handlers, timeout=ENDING_SECONDS)
