"""One client connection: what flows on it, either way, and how long it waits for the client. Its requests: door.py.

Back-pressure on both sides, and one deadline at a time, which the server's sweep looks at.
"""

from __future__ import annotations

import asyncio
import math
import sys
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final

from sanic.models.server_types import ConnInfo
from sanic.server.protocols.http_protocol import HttpProtocol

from app.core.errors import GatewayError, RequestTimedOut
from app.core.relay.outbox import Outbox
from app.core.relay.reset import reset
from app.reader import Reader

if TYPE_CHECKING:
    from app.exchange import Exchange
    from app.fast_path import FastPath

IDLE_SECONDS: Final = 65.0
HEAD_SECONDS: Final = 15.0
WRITE_SECONDS: Final = 60.0
LINGER_SECONDS: Final = 1.0


class ClientConnection(HttpProtocol):
    """What a DoorProtocol is whichever request is under way (`exchange`: that request, None between two).

    Inherited and not held by it: they ask each other on every request.
    """

    __slots__ = (
        "_outbox",
        "_upload_idle_seconds",
        "_upload_until",
        "_write_left",
        "can_write",
        "deadline",
        "exchange",
        "is_draining",
        "is_gone",
        "is_lingering",
        "is_over",
        "is_reading_paused",
        "peer_ip",
        "reader",
    )

    def connection_made(self, transport: Any) -> None:
        transport.set_write_buffer_limits(low=16_384, high=65_536)
        self.connections.add(self)
        self.transport = transport
        self.conn_info = ConnInfo(transport, unix=self._unix)
        self.peer_ip: str = self.conn_info.client_ip or ""
        self.is_gone = self.is_lingering = self.is_reading_paused = self.is_over = False
        self.is_draining: bool = getattr(self.app.ctx, "is_draining", False)
        self.exchange: Exchange | FastPath | None = None
        self.can_write = True
        self.reader = Reader(self._pause_reading, self.resume_reading)
        self._write_left = 0
        self._upload_idle_seconds = self._upload_until = math.inf
        self.restart_clock()
        self._outbox: Outbox = getattr(self.app.ctx, "outbox", None) or Outbox(self.loop)

    @abstractmethod
    def _give_up(self, error: GatewayError) -> None:
        """Answers `error` in the place of what has not come in time. The requests are the DoorProtocol's."""

    # --- its end ---

    def _end(self) -> None:
        """To be called between two requests."""
        self.is_over = True
        if self._task is not None:
            self._task.cancel()
        else:
            self.close()

    def reset(self) -> None:
        """Ends the connection with RST: the FIN of `abort` is what a client that reads until the end takes for it."""
        if self.transport is not None:
            self._outbox.flush()
            reset(self.transport)
        self.abort()

    def close(self, timeout: float | None = None) -> None:
        self._outbox.flush()
        super().close(timeout)

    def hand_over(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """After a switch of protocols: the connection is `protocol`'s until `connection_lost` says that it has ended.

        With what the client has sent in that protocol already.
        """
        transport: Any = self.transport
        self._outbox.flush()
        transport.set_protocol(protocol)
        self.deadline = math.inf
        return transport, self.reader.take_held()

    # --- what flows ---

    def write(self, data: bytes) -> None:
        """Sends `data` with the next flush: the one way from here to the client."""
        if self.transport is not None:
            self._outbox.write(self.transport, data)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.can_write = False
        self._write_left = sys.maxsize
        self.restart_clock()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.can_write = True
        self.restart_clock()

    def _is_being_read(self) -> bool:
        """Whether the client took anything since the last look: a slow reader is no dead one."""
        before, self._write_left = self._write_left, self.transport.get_write_buffer_size() if self.transport else 0
        return self._write_left < before

    def _pause_reading(self) -> None:
        if not self.is_reading_paused and self.transport is not None and not self.transport.is_closing():
            self.is_reading_paused = True
            self.transport.pause_reading()
            self.restart_clock()

    def resume_reading(self) -> None:
        if not self.is_reading_paused or self.reader.is_full or self.transport is None or self.transport.is_closing():
            return
        self.is_reading_paused = False
        self.transport.resume_reading()
        self.data_received(b"")  # what was held

    # --- time ---

    def begin_upload(self) -> None:
        """The body of the request that begins is still to come, at least in part: it has its own limits."""
        settings = self.app.ctx.settings
        self._upload_idle_seconds = settings.upload_idle_seconds
        self._upload_until = self.loop.time() + settings.upload_seconds
        self.restart_clock()

    def restart_clock(self) -> None:
        """To be called when what we wait for changes or came a step nearer: the time for it starts anew."""
        self.deadline = self.loop.time() + self._patience_seconds()

    def _patience_seconds(self) -> float:
        if not self.can_write:
            return WRITE_SECONDS
        if self.exchange is not None:
            return self._upload_patience_seconds() if self._waits_for_body(self.exchange) else math.inf
        if self.reader.queue:
            return math.inf
        if self.reader.body is not None:
            return LINGER_SECONDS
        return HEAD_SECONDS if self.reader.in_head else IDLE_SECONDS

    def _upload_patience_seconds(self) -> float:
        """Slow is fine, silent is not, and nothing is for ever: a byte now and then costs a sender nothing."""
        left_seconds: float = self._upload_until - self.loop.time()
        return min(self._upload_idle_seconds, left_seconds)

    def _waits_for_body(self, exchange: Exchange | FastPath) -> bool:
        """Whether it is the client's turn: with the pieces of this request's body, until there is an answer."""
        body = exchange.message.body
        return not (body.is_whole or exchange.has_begun or self.is_reading_paused)

    def check_timeouts(self, now: float | None = None) -> None:
        """Called by the server's sweep: ends what has waited too long for the client."""
        if now is None or now < self.deadline:
            return
        self.deadline = math.inf
        if not self.can_write and self._is_being_read():
            self.deadline = now + WRITE_SECONDS
        elif not self.can_write:
            self.reset()
        elif self.is_lingering:
            self.abort()
        elif self.exchange is not None:
            if self._waits_for_body(self.exchange):
                self._give_up(RequestTimedOut())
        elif self.reader.in_head:
            self._give_up(RequestTimedOut())
        else:
            self._end()

    @property
    def waits_since(self) -> float:
        """Since when the next request is waited for; inf while there is one (Occupancy asks whom it may end)."""
        reader = self.reader
        if self.exchange is not None or reader.queue or reader.body is not None:
            return math.inf
        if not self.can_write:  # an answer is still being taken: nothing could end it at once
            return math.inf
        return math.inf if self.is_lingering else self.deadline - self._patience_seconds()

    def lose_patience(self, now: float) -> None:
        """The wait for the next request ends now, as it would at its deadline: others need the room."""
        self.deadline = now
        self.check_timeouts(now)

    def close_if_idle(self, grace_seconds: float = 0.0) -> bool:
        """Part of the drain: ends the connection if it was idle for so long; its next answer is the last anyway."""
        self.is_draining = True
        reader = self.reader
        is_busy = self.exchange is not None or reader.queue or reader.in_head or reader.body or self.is_lingering
        if is_busy or self.loop.time() < self.deadline - IDLE_SECONDS + grace_seconds:
            return False
        self._end()
        return True
