"""How a worker ends without losing a request: everybody is told, then nobody comes any more, then all have gone.

HTTP/1.1 can say that a connection ends only with an answer (RFC 9112 section 9.6), so there is a time in which each
answer says so while connections are neither refused nor closed. Routers need it too, to see that we are not ready.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from loguru import logger
from sanic import Sanic

from app import listener
from app.door import DoorProtocol
from app.doorway import Doorway

LATECOMER_SECONDS: Final = 0.1
"""The least that an idle connection is waited for: who asks just now is still answered."""
LOOK_SECONDS: Final = 0.02
ENDING_SECONDS: Final = 1.0
"""For handlers that were cut, to log their requests and let go of what they hold."""


@dataclass(frozen=True, slots=True)
class Patience:
    """`total_seconds`: from the signal until what still runs is cut. `delay_seconds`: of those, the first, in which
    everybody is told before connections are refused and idle ones closed; cut short by `hurry`."""

    total_seconds: float
    delay_seconds: float
    hurry: asyncio.Event

    @property
    def grace_seconds(self) -> float:
        """How long a connection is idle before it is closed."""
        if self.hurry.is_set():
            return LATECOMER_SECONDS
        return max(LATECOMER_SECONDS, min(self.delay_seconds, self.total_seconds / 2))


async def drain(
    app: Sanic[Any, Any], server: Any, doorway: Doorway, patience: Patience, is_gateways_end: Callable[[], bool]
) -> None:
    """Tells, refuses, waits, cuts. `server` is Sanic's, `doorway` where its connections come from.

    `is_gateways_end`: whether all workers end. One that ends alone leaves the connections that wait to its siblings.
    """
    deadline = asyncio.get_running_loop().time() + patience.total_seconds
    app.ctx.is_draining = True
    for connection in server.connections:
        connection.is_draining = True  # the answers from now on say that they are the last
    await server.before_stop()
    await _tell_everybody(patience)
    app.ctx.tunnels.drain()  # not before: who connects anew meanwhile would come here again
    if is_gateways_end():
        await listener.empty(doorway.listener)
    doorway.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(deadline):
            await _ended(server.connections, patience)
    await _cut(server.connections, patience.total_seconds)
    await server.after_stop()


async def _tell_everybody(patience: Patience) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(patience.hurry.wait(), patience.grace_seconds)
    if patience.hurry.is_set():
        await asyncio.sleep(LATECOMER_SECONDS)


async def _ended(connections: set[DoorProtocol], patience: Patience) -> None:
    """Ends those that have been idle for their grace or become so; returns when none is left."""
    while connections:
        for connection in list(connections):
            connection.close_if_idle(patience.grace_seconds)
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
