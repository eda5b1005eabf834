"""The door: the public app's HTTP/1 connections, on Sanic's protocol hooks.

Sanic's own parser lets through what a proxy must not; our Reader refuses it before Sanic sees a request. A connection
takes its requests in order, pipelined ones too: each on the fast path where that is open to it (fast_path.py), else in
a task, through an Exchange.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from loguru import logger
from sanic.models.server_types import ConnInfo
from sanic.server.protocols.http_protocol import HttpProtocol

from app.body import Body, ClientGone
from app.context import Context
from app.core.errors import GatewayError, RequestTimedOut, TooManyConnections
from app.core.relay.outbox import Outbox
from app.core.relay.reset import reset
from app.exchange import Exchange
from app.fast_path import FastPath, takes
from app.message import Message
from app.reader import Reader

IDLE_SECONDS: Final = 65.0
HEAD_SECONDS: Final = 15.0
WRITE_SECONDS: Final = 60.0
LINGER_SECONDS: Final = 1.0


class DoorProtocol(HttpProtocol):
    """One client connection. Sanic makes it (`protocol=`) and calls asyncio's methods; `HTTP_CLASS` is the exchange."""

    HTTP_CLASS: Any = Exchange
    __slots__ = (
        "_gateway",
        "_has_task_begun",
        "_is_lingering",
        "_is_over",
        "_is_serving",
        "_outbox",
        "_reading_paused",
        "_upload_idle_seconds",
        "_upload_until",
        "_write_left",
        "can_write",
        "deadline",
        "exchange",
        "is_draining",
        "is_gone",
        "peer_ip",
        "reader",
    )

    def connection_made(self, transport: Any) -> None:
        transport.set_write_buffer_limits(low=16_384, high=65_536)
        self.connections.add(self)
        self.transport = transport
        self.conn_info = ConnInfo(transport, unix=self._unix)
        self.peer_ip: str = self.conn_info.client_ip or ""
        self.is_gone = self._is_lingering = self._reading_paused = self._is_over = self._is_serving = False
        self._has_task_begun = False
        self.is_draining: bool = getattr(self.app.ctx, "is_draining", False)
        self.exchange: Exchange | FastPath | None = None
        self.can_write = True
        self.reader = Reader(self._pause_reading, self._resume_reading)
        self._write_left = 0
        self._upload_idle_seconds = self._upload_until = math.inf
        self.restart_clock()
        self._outbox: Outbox = getattr(self.app.ctx, "outbox", None) or Outbox(self.loop)
        self._gateway: Any = self.app if getattr(self.app, "has_fast_path", False) else None
        entry = self.app.ctx.occupancy.enter(self, self.peer_ip, self.loop.time())
        if entry == "drop":
            self.reset()
            return
        if entry == "refuse":
            self.reader.refuse(TooManyConnections())
            self._serve()

    # --- the requests of this connection, in order ---

    def _serve(self) -> None:
        """Begins the next request, and the ones after it as long as each has its answer at once."""
        if self._is_serving:
            return
        self._is_serving = True
        try:
            while self.exchange is None and self._task is None and self.reader.queue and not self._is_over:
                self._begin(self.reader.queue.popleft())
        finally:
            self._is_serving = False

    def _begin(self, message: Message) -> None:
        if self._gateway is not None and self.can_write and takes(message):
            self.exchange = path = FastPath(self, self._gateway.ctx, message)
            path.go()
        else:
            self.exchange = exchange = self.HTTP_CLASS(self, message)
            self._start(exchange, None)

    def go_on(self, context: Context, way: Callable[..., Awaitable[Any]], rest: tuple[Any, ...]) -> None:
        """From here on the request that has begun takes a task: `way(request, *rest)` is what remains to be done."""
        self.exchange = exchange = self.HTTP_CLASS(self, context.message)
        request = exchange.make_request(context)
        request.route = self._gateway.router.proxy_route
        self._start(exchange, self._gateway.finish(request, way(request, *rest)))

    def _start(self, exchange: Exchange, way: Awaitable[None] | None) -> None:
        self._has_task_begun = False
        self._task = self.loop.create_task(self.connection_task(exchange, way))
        self._task.add_done_callback(self._task_ended)

    async def connection_task(self, exchange: Exchange | None = None, way: Awaitable[None] | None = None) -> None:
        """That request, and the ones that came right behind it. Cancelled when the client is gone."""
        self._has_task_begun = True
        try:
            while exchange is not None:
                keep_alive = await (exchange.run() if way is None else exchange.run(way))
                if not await self._can_follow(exchange, keep_alive=keep_alive):
                    self._is_over = True
                    await self._linger()
                    return
                exchange, way = self._next_exchange(), None
        except asyncio.CancelledError:
            self._is_over = True
        except Exception:  # noqa: BLE001 - a bug of ours: its connection ends, and the log says why
            self._is_over = True
            logger.exception("connection ended by an error")

    async def _can_follow(self, exchange: Exchange, *, keep_alive: bool) -> bool:
        """Whether another request may, after this one has its answer."""
        self.exchange = None
        message = exchange.message
        if message.upgrade is not None:
            self.reader.stay()
        return keep_alive and not self.is_gone and (message.body.is_whole or await self._drained(message.body))

    def _next_exchange(self) -> Exchange | None:
        """For the next request, where it is here."""
        self.restart_clock()
        if not self.reader.queue:
            self._resume_reading()
        if not self.reader.queue:
            return None
        exchange: Exchange = self.HTTP_CLASS(self, self.reader.queue.popleft())
        self.exchange = exchange
        return exchange

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._next()

    def answered(self, *, keep_alive: bool) -> None:
        """The request that was served without a task has its answer."""
        self.exchange = None
        self._is_over = self._is_over or not keep_alive or self.is_gone
        if not self._is_over or self.is_gone or self.transport is None:
            self._next()
        else:
            self._has_task_begun = True  # its request has been logged: nothing is lost if it is cancelled at once
            self._task = self.loop.create_task(self._linger())
            self._task.add_done_callback(self._task_ended)

    def _next(self) -> None:
        if self._is_over:
            self.close()
            return
        if self.reader.queue:
            self.restart_clock()
            self._serve()
            return
        if self.can_write and not self.reader.in_head:
            self.deadline = self.loop.time() + IDLE_SECONDS  # as restart_clock would find, for the most frequent case
        else:
            self.restart_clock()
        if self._reading_paused:
            self._resume_reading()  # which serves what was held

    async def _drained(self, body: Body) -> bool:
        """Reads the rest of a small body that nobody wanted, so that the connection can go on; False if it is large."""
        if not body.is_worth_draining:
            return False
        self.restart_clock()  # once: a client that trickles is not waited for
        try:
            while not body.is_whole:
                await body.read()
        except (GatewayError, ClientGone):
            return False
        return True

    async def _linger(self) -> None:
        """Lets the client read our last answer: a close with unread input would be a reset (RFC 9112 section 9.6)."""
        if self.is_gone or self.transport is None or self.transport.is_closing():
            return
        self._outbox.flush()  # before that nobody knows whether the client takes it
        await self._can_write.wait()
        if self.reader.is_between and not self._reading_paused:
            return
        self._is_lingering = True
        self.reader.queue.clear()
        self.transport.write_eof()
        self._resume_reading()
        self.deadline = self.loop.time() + LINGER_SECONDS
        await self.loop.create_future()  # until the client has closed, or the deadline

    def write(self, data: bytes) -> None:
        """Sends `data` with the next flush: the one way from here to the client."""
        if self.transport is not None:
            self._outbox.write(self.transport, data)

    def close(self, timeout: float | None = None) -> None:
        self._outbox.flush()
        super().close(timeout)

    # --- asyncio's side ---

    def data_received(self, data: bytes) -> None:
        if self._is_lingering:
            return
        reader = self.reader
        was_in_head = reader.in_head
        reader.feed(data)
        if self.exchange is None and reader.queue and self.can_write:
            self.deadline = math.inf  # as restart_clock would find, for the most frequent case
        elif self.exchange is not None or reader.in_head is not was_in_head:
            self.restart_clock()
        if reader.queue:
            self._serve()

    def _give_up(self, error: GatewayError) -> None:
        self.reader.refuse(error)
        self._serve()

    def eof_received(self) -> bool:
        """The client sends no more: to a proxy it has hung up. What needs no backend is still answered."""
        self.is_gone = True
        self.reader.hang_up()
        if self.exchange is not None:
            self.exchange.hang_up()
        elif self._is_lingering or not self.reader.queue:
            self._end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_gone = True
        self.reader.hang_up()
        self._is_over = True
        self.app.ctx.occupancy.leave(self)
        self.connections.discard(self)
        self.resume_writing()
        if self.conn_info is not None:
            self.conn_info.lost = True
        if self._task is not None and self._has_task_begun:
            self._task.cancel()
        elif self._task is not None:
            self.loop.call_soon(self._task.cancel)  # one that is cancelled before it begins would never log its request
        elif isinstance(self.exchange, FastPath):
            self.exchange.cut()

    def _end(self) -> None:
        """To be called between two requests."""
        self._is_over = True
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
        if self._task is None and isinstance(self.exchange, FastPath):
            self.exchange.cut()

    def hand_over(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """After a switch of protocols: the connection is `protocol`'s until `connection_lost` says that it has ended.

        With what the client has sent in that protocol already.
        """
        transport: Any = self.transport
        self._outbox.flush()
        transport.set_protocol(protocol)
        self.deadline = math.inf
        return transport, self.reader.take_held()

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
        if not self._reading_paused and self.transport is not None and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()
            self.restart_clock()

    def _resume_reading(self) -> None:
        if not self._reading_paused or self.reader.is_full or self.transport is None or self.transport.is_closing():
            return
        self._reading_paused = False
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
        return not (body.is_whole or exchange.has_begun or self._reading_paused)

    def check_timeouts(self, now: float | None = None) -> None:
        """Called by the server's sweep: ends what has waited too long for the client."""
        if now is None or now < self.deadline:
            return
        self.deadline = math.inf
        if not self.can_write and self._is_being_read():
            self.deadline = now + WRITE_SECONDS
        elif not self.can_write:
            self.reset()
        elif self._is_lingering:
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
        return math.inf if self._is_lingering else self.deadline - self._patience_seconds()

    def lose_patience(self, now: float) -> None:
        """The wait for the next request ends now, as it would at its deadline: others need the room."""
        self.deadline = now
        self.check_timeouts(now)

    def close_if_idle(self, grace_seconds: float = 0.0) -> bool:
        """Part of the drain: ends the connection if it was idle for so long; its next answer is the last anyway."""
        self.is_draining = True
        reader = self.reader
        is_busy = self.exchange is not None or reader.queue or reader.in_head or reader.body or self._is_lingering
        if is_busy or self.loop.time() < self.deadline - IDLE_SECONDS + grace_seconds:
            return False
        self._end()
        return True

    @property
    def handler(self) -> asyncio.Task[None] | None:
        """What serves the request under way, where it needs a task."""
        return self._task
