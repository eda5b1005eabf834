"""The door: a client's connection on Sanic's protocol hooks, and those of its requests that take a task.

Sanic's own parser lets through what a proxy must not; our Reader refuses it before Sanic sees a request. A connection
takes its requests in order, pipelined ones too (conversation.py): each on the fast path where that is open to it
(fast_path.py), else here, through an Exchange.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from loguru import logger

from app.body import Body, ClientGone
from app.client_connection import LINGER_SECONDS, ClientConnection
from app.context import Context
from app.conversation import Conversation
from app.core.errors import GatewayError, TooManyConnections
from app.exchange import Exchange
from app.fast_path import FastPath
from app.message import Message


class DoorProtocol(ClientConnection):
    """One client connection, serving. Sanic makes it (`protocol=`) and calls asyncio's methods; on the fast path
    the transport calls the conversation instead.

    `HTTP_CLASS` is the exchange.
    """

    HTTP_CLASS: Any = Exchange
    __slots__ = (
        "_has_task_begun",
        "conversation",
    )

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._has_task_begun = False
        has_fast_path = getattr(self.app, "has_fast_path", False)
        self.conversation = Conversation(self, self.reader, self.app.ctx if has_fast_path else None)
        if has_fast_path:
            transport.set_protocol(self.conversation)
        entry = self.app.ctx.occupancy.enter(self, self.peer_ip, self.loop.time())
        if entry == "drop":
            self.reset()
            return
        if entry == "refuse":
            self.reader.refuse(TooManyConnections())
            self.conversation.serve()

    # --- the requests of this connection, in order ---

    def begin(self, message: Message) -> None:
        """Serves a request that takes a task."""
        self.exchange = exchange = self.HTTP_CLASS(self, message)
        self._start(exchange, None)

    def go_on(self, context: Context, way: Callable[..., Awaitable[Any]], rest: tuple[Any, ...]) -> None:
        """From here on the request that has begun takes a task: `way(request, *rest)` is what remains to be done."""
        self.exchange = exchange = self.HTTP_CLASS(self, context.message)
        request = exchange.make_request(context)
        app: Any = self.app
        request.route = app.router.proxy_route
        self._start(exchange, app.finish(request, way(request, *rest)))

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
                    self.is_over = True
                    await self._linger()
                    return
                exchange, way = self._next_exchange(), None
        except asyncio.CancelledError:
            self.is_over = True
        except Exception:  # noqa: BLE001 - a bug of ours: its connection ends, and the log says why
            self.is_over = True
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
            self.resume_reading()
        if not self.reader.queue:
            return None
        exchange: Exchange = self.HTTP_CLASS(self, self.reader.queue.popleft())
        self.exchange = exchange
        return exchange

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self.conversation.go_on()

    def linger(self) -> None:
        """Ends the connection after an answer that took no task, as `connection_task` does after one that did."""
        self._has_task_begun = True  # its request has been logged: nothing is lost if it is cancelled at once
        self._task = self.loop.create_task(self._linger())
        self._task.add_done_callback(self._task_ended)

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
        if self.reader.is_between and not self.is_reading_paused:
            return
        self.is_lingering = True
        self.reader.queue.clear()
        self.transport.write_eof()
        self.resume_reading()
        self.deadline = self.loop.time() + LINGER_SECONDS
        await self.loop.create_future()  # until the client has closed, or the deadline

    # --- asyncio's side ---

    def data_received(self, data: bytes) -> None:
        self.conversation.data_received(data)

    def _give_up(self, error: GatewayError) -> None:
        self.reader.refuse(error)
        self.conversation.serve()

    def eof_received(self) -> bool:
        """The client sends no more: to a proxy it has hung up. What needs no backend is still answered."""
        self.is_gone = True
        self.reader.hang_up()
        if self.exchange is not None:
            self.exchange.hang_up()
        elif self.is_lingering or not self.reader.queue:
            self._end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_gone = True
        self.reader.hang_up()
        self.is_over = True
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

    def reset(self) -> None:
        super().reset()
        if self._task is None and isinstance(self.exchange, FastPath):
            self.exchange.cut()

    @property
    def handler(self) -> asyncio.Task[None] | None:
        """What serves the request under way, where it needs a task."""
        return self._task
