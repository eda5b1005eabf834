"""The client to the backends: pooled keep-alive HTTP/1.1 over TCP and TLS, streaming both ways.

What the caller sees is an Answer: the backend's head, and its body as it comes. One connection carries one request at a
time. Time-outs are deadlines that one sweep looks at, so that a request starts and cancels no timer of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
import time
from collections.abc import Callable
from typing import Final, Protocol, Self, cast

from app.core.errors import BackendTimedOut, BackendUnavailable
from app.core.model import Backend
from app.core.relay.answer_reader import SWITCHING, Interim
from app.core.relay.outbox import Outbox
from app.core.relay.peer import Peer
from app.core.relay.pool import Pool
from app.core.relay.target import Place

SWEEP_SECONDS_MAX: Final = 0.5
SWEEP_SECONDS_MIN: Final = 0.02


class Outgoing(Protocol):
    """A request body on its way: what is here already, or pieces as they arrive."""

    @property
    def is_whole(self) -> bool:
        """Whether every byte has arrived, so that `encode_rest` gives all of it."""

    def encode_rest(self) -> bytes:
        """Everything that has arrived and was not taken yet, framed for the backend."""

    async def piece(self) -> bytes:
        """The next framed piece, empty at the end. Raises the client's failure (hung up, malformed, too large)."""


class Answer:
    """A backend's answer: its head, then its body through `take` and `more`. Must be closed; closing twice is fine."""

    __slots__ = ("_peer", "_pool", "_pump", "fields", "framed_by", "place", "reason", "status")

    def __init__(self, peer: Peer, pool: Pool, pump: asyncio.Task[None] | None) -> None:
        self._peer = peer
        self._pool = pool
        self._pump = pump
        self.place: Place | None = None
        """What is to be left when the answer is over, where the caller has one."""
        self.status = peer.status
        self.reason = peer.reason
        self.fields = peer.fields
        self.framed_by = peer.framed_by

    @property
    def is_complete(self) -> bool:
        """Whether the backend has said everything; bytes may still wait for `take`."""
        return self._peer.is_complete

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        """What came after a chunked body."""
        return self._peer.trailers

    def take(self) -> bytes:
        """The body bytes that are here, possibly none. Never waits."""
        return self._peer.take()

    async def more(self) -> None:
        """Waits until there is something to take or the answer is complete.

        Raises BackendUnavailable when the backend dies before the end of its answer, BackendTimedOut when it is silent.
        """
        while not self._peer.has_bytes:
            await self._peer.arrival()

    def hand_over(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """After a 101: the connection becomes `protocol`'s, and counts as busy until `close`. With its first bytes.

        Raises BackendUnavailable when it is gone.
        """
        return self._peer.hand_over(protocol)

    async def hold(self, seconds: float) -> None:
        """Waits until the answer is complete, too large to be held, or `seconds` have passed. Raises as `more` does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._peer.is_full:
                    await self._peer.arrival()

    async def close(self) -> None:
        """Gives the connection back when request and answer are both whole; ends it otherwise."""
        pump, self._pump = self._pump, None
        whole = pump is None or (pump.done() and not pump.cancelled() and pump.exception() is None)
        self._pool.release(self._peer, reusable=whole)  # first: what follows can be cancelled
        if (place := self.place) is not None:
            is_whole = self._peer.is_complete or self.status == SWITCHING  # what a tunnel carries is no answer
            place.leave(is_whole, None if is_whole else self._peer.failure)
        if pump is not None and not pump.done():
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)


class Upstream:
    """Connections to all backends of one worker. An async context manager."""

    def __init__(
        self,
        *,
        connect_seconds: float,
        idle_seconds: float,
        deadline_seconds: float = math.inf,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
        outbox: Outbox | None = None,
    ) -> None:
        """`connect_seconds`: for name, TCP and TLS together. `idle_seconds`: without a byte from the backend.

        `deadline_seconds`: for whoever sends, from a request's begin to the head of its answer. `outbox`: where other
        connections write too.
        """
        self.connect_seconds = connect_seconds
        self.deadline_seconds = deadline_seconds
        self.clock = clock
        self._idle_seconds = idle_seconds
        self._sweep_seconds = min(SWEEP_SECONDS_MAX, max(SWEEP_SECONDS_MIN, min(idle_seconds, deadline_seconds) / 10))
        self._tls = tls
        self._outbox = outbox or Outbox(asyncio.get_running_loop())
        self.pool = Pool(clock)
        self._sweeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._sweeper = asyncio.create_task(self._sweep(), name="upstream sweep")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.pool.close()

    @property
    def busy_count(self) -> int:
        """Requests under way at backends."""
        return self.pool.busy_count

    @property
    def idle_count(self) -> int:
        return self.pool.idle_count

    async def send(
        self,
        backend: Backend,
        head: bytes,
        body: Outgoing | None = None,
        *,
        head_only: bool = False,
        on_interim: Interim | None = None,
        protocol: bytes | None = None,
        until: float = math.inf,
        fresh: bool = False,
    ) -> Answer:
        """Sends one request and returns when the head of its final answer is here.

        `head`: request line and fields up to and with the empty line. `head_only`: a HEAD request, whose answer has no
        body whatever it says. `on_interim(status, fields)` is told of 1xx answers. `protocol`: what the head asks to
        switch to (Upgrade); an answer with status 101 has agreed. `until`: when the head must be here, by the pool's
        clock; the time that a client takes to send its body is given back. `fresh`: on a new connection.
        Nothing is ever sent twice here: a kept connection that turns out closed is passed over, later failures are
        raised, with how far the request had come. A whole `body` has given its bytes by then.
        Raises BackendUnavailable (refused, reset, no HTTP), BackendTimedOut, or what `body` raises.
        """
        peer = None if fresh else self.pool.take(backend)
        is_kept = peer is not None
        if peer is None:
            peer = await self._connect(backend, until)
            self.pool.add(peer)
        pump: asyncio.Task[None] | None = None
        try:
            peer.begin(head_only, on_interim, protocol)
            peer.head_deadline = until
            if body is None or body.is_whole:
                peer.write(head if body is None else head + body.encode_rest())
            else:
                peer.write(head)
                pump = asyncio.create_task(self._pump(peer, body, until - self.clock()))
            while not peer.has_head:
                await peer.arrival()
            return Answer(peer, self.pool, pump)
        except BaseException as error:
            self.pool.give_up(peer, error, is_kept=is_kept, is_streamed=pump is not None)
            if pump is not None:
                pump.cancel()
                await asyncio.gather(pump, return_exceptions=True)
            raise

    async def _pump(self, peer: Peer, body: Outgoing, head_seconds: float) -> None:
        """Carries the client's body. When the client fails, so does the request, at once."""
        try:
            peer.head_deadline = math.inf
            peer.rest()
            while piece := await body.piece():
                peer.expect()
                while (room := peer.until_writable()) is not None:
                    await room
                peer.write(piece)
                peer.rest()
            peer.expect()
            peer.head_deadline = self.clock() + head_seconds
        except Exception as error:
            peer.fail(error)
            raise

    async def _connect(self, backend: Backend, until: float) -> Peer:
        loop = asyncio.get_running_loop()
        secure = backend.scheme == "https"
        self.pool.make_room(backend)
        try:
            async with asyncio.timeout(min(self.connect_seconds, until - self.clock())):
                _, peer = await loop.create_connection(
                    lambda: cast(asyncio.Protocol, Peer(backend, self._idle_seconds, self.clock, self._outbox)),
                    backend.host,
                    backend.port,
                    ssl=self._context() if secure else None,
                    server_hostname=backend.host if secure else None,
                )
        except TimeoutError as error:
            raise BackendTimedOut from error
        except (OSError, ssl.SSLError, UnicodeError) as error:
            raise BackendUnavailable from error
        return cast(Peer, peer)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    async def _sweep(self) -> None:
        """Looks at every deadline, often enough for the shortest time-out to be kept within a tenth."""
        while True:
            await asyncio.sleep(self._sweep_seconds)
            self.pool.sweep()
