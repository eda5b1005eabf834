"""Where a worker accepts connections: its share of the listener, which it shuts for a while when descriptors run out.

Left alone, the event loop would accept and at once close every connection it has no descriptor for, those that another
worker could serve too. Shut, they wait in the queue, for whoever has one first.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from loguru import logger

from app.descriptors import Descriptors
from app.door import DoorProtocol
from app.listener import BACKLOG

LOOK_SECONDS: Final = 0.25
SHORT_IDLE_SECONDS: Final = 1.0
"""While descriptors are short, a connection that is idle for so long makes room for others."""
REOPEN_SHARE: Final = 0.9
"""Of the connections that there were when it shut: it does not open and shut for each."""
REPORT_SECONDS: Final = 60.0


class Doorway:
    """Makes each connection's protocol in Sanic's way (its `protocol=`). To be closed, once and for all."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener.dup()  # the event loop closes the one that it is given
        self._descriptors = Descriptors(self.listener.fileno())
        self._make: Callable[[], DoorProtocol] | None = None
        self._server: Any = None
        self._connections: set[DoorProtocol] = set()
        self._count_when_shut = 0
        self._quiet_until = 0.0
        self._was_reported = False

    def is_open_with(self, server: Any, connections: set[DoorProtocol]) -> None:
        """Sanic has opened it: `server` is the event loop's."""
        self._server, self._connections = server, connections

    def __call__(self, **options: Any) -> DoorProtocol:
        if self._make is None:
            self._make = partial(self, **options)
        if self._server is not None and self._descriptors.are_short():
            asyncio.get_running_loop().call_soon(self._shut)  # not at once: this connection is yet to be accepted
        return DoorProtocol(**options)

    def close(self) -> None:
        """No more connections here."""
        self._close_server()
        self.listener.close()

    def _close_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def watch(self) -> None:
        """For ever: shuts when descriptors are short, makes room meanwhile, opens again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.listener.fileno() < 0:
                return
            if self._server is not None:
                if self._descriptors.are_short():
                    self._shut()
            elif self._has_room():
                await self._reopen()
            else:
                for connection in list(self._connections):
                    connection.close_if_idle(SHORT_IDLE_SECONDS)

    def _shut(self) -> None:
        if self._server is None or not self._connections:  # nothing would get better by it
            return
        self._count_when_shut = len(self._connections)
        self._close_server()
        self._report(is_short=True)

    def _has_room(self) -> bool:
        count = len(self._connections)
        return not count or (count <= self._count_when_shut * REOPEN_SHARE and not self._descriptors.are_short())

    async def _reopen(self) -> None:
        assert self._make is not None  # noqa: S101 - there were connections
        with contextlib.suppress(OSError):  # still none to be had: the next look tries again
            server = await asyncio.get_running_loop().create_server(
                self._make, sock=self.listener.dup(), backlog=BACKLOG, start_serving=False
            )
            self._server = server  # before it accepts: the first connection may be one too many again
            await server.start_serving()
            self._report(is_short=False)

    def _report(self, *, is_short: bool) -> None:
        """Both ends of a shortage, but at most one a minute."""
        now = asyncio.get_running_loop().time()
        if is_short and now >= self._quiet_until:
            self._quiet_until, self._was_reported = now + REPORT_SECONDS, True
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            logger.warning(
                f"file descriptors run out ({self._count_when_shut} connections, at most {limit} descriptors): "
                "new connections wait, idle ones are closed; raise the limit (ulimit -n)"
            )
        elif not is_short and self._was_reported:
            self._was_reported = False
            logger.info("there are file descriptors again: connections are accepted")
