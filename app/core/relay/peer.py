"""One connection to a backend: requests go out on it, what comes back is an AnswerReader's, each in bounded memory."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final, cast

import httptools

from app.core.errors import BackendFailed, BackendUnavailable
from app.core.model import Backend
from app.core.relay.answer_reader import HEAD_BYTES_MAX, SWITCHING, AnswerReader, Interim, Malformed
from app.core.relay.outbox import Outbox

Woken = Callable[[], None]

BUFFER_BYTES_HIGH: Final = 262_144
WRITE_BYTES_HIGH: Final = 262_144


class Peer(AnswerReader):
    """Carries one request at a time: `begin`, `write`…, `arrival`s until `has_head`, `take`s, `end`.

    An asyncio.Protocol in all but name: without a base class, mypyc makes a native class of it (compiled.py).

    `deadline` (by the clock given) moves with every byte in either direction. It rests while the client is slow: with
    its upload before there is a head, with reading the answer afterwards.
    """

    __slots__ = (
        "_asked_at",
        "_awaits_client",
        "_busy",
        "_clock",
        "_error",
        "_idle_seconds",
        "_loop",
        "_outbox",
        "_reading_paused",
        "_transport",
        "_waiter",
        "_woken",
        "_writable",
        "_writing_paused",
        "backend",
        "deadline",
        "has_dropped",
        "head_deadline",
    )
    # Without them: beyond 30 attributes, the answer's included, CPython 3.11 gives up its fast instances, which costs
    # half a microsecond.

    def __init__(
        self, backend: Backend, idle_seconds: float, clock: Callable[[], float], outbox: Outbox | None = None
    ) -> None:
        super().__init__()
        self.backend = backend
        self.deadline = math.inf
        self.head_deadline = math.inf
        """When the head must be here, however much moves meanwhile (1xx answers, say)."""
        self.has_dropped = False
        """Whether the connection ended before a write to it left the outbox: nothing of that reached the backend."""
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._outbox = outbox or Outbox(self._loop)
        self._transport: asyncio.Transport | None = None
        self._busy = False
        self._asked_at = -1
        self._awaits_client = False
        self._reading_paused = False
        self._writing_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._woken: Woken | None = None
        self._writable: asyncio.Future[None] | None = None
        self._error: Exception | None = None

    # --- what the pool asks and does ---

    @property
    def is_usable(self) -> bool:
        """Whether a request may be written: open, and nothing unasked-for has come."""
        return self._transport is not None and not self._transport.is_closing() and self._error is None

    @property
    def failure(self) -> BackendFailed | None:
        """What ended the request, where that was the backend's doing."""
        return self._error if isinstance(self._error, BackendFailed) and not self.is_complete else None

    def is_overdue(self, now: float) -> bool:
        return self.deadline <= now or (not self.has_head and self.head_deadline <= now)

    def begin(self, head_only: bool, on_interim: Interim | None, protocol: bytes | None = None) -> None:
        """`protocol`: what the request asks to switch to; only then may the answer be a 101."""
        self._reset(head_only, on_interim, protocol)
        self._error = None
        self._busy = True
        self._asked_at = -1
        self._awaits_client = False

    def end(self) -> bool:
        """Ends the request; whether the connection can carry another."""
        reusable = self.is_complete and self._keep_alive and not self._writing_paused and self.is_usable
        self._busy = False
        self._on_interim = None  # it knows the exchange, which need not wait for this connection's next request
        if self._reading_paused:
            self._resume_reading()
        return reusable

    def abort(self) -> None:
        """Closes at once; whatever the backend was doing for us, it may stop."""
        self._busy = False
        if self._transport is not None:
            self._transport.abort()

    def fail(self, error: Exception) -> None:
        """Ends the request with `error`, unless it is over. The first failure is the one that counts."""
        if self._error is None and not self.is_complete:
            self._error = error
        if self._transport is not None:
            self._transport.abort()
        self._wake()
        self._wake_writer()

    # --- the request ---

    def rest(self) -> None:
        """It is the client's turn to send: the backend's clock stands still, unless it has begun to answer."""
        self._awaits_client = True
        self._touch()

    def expect(self) -> None:
        """It is the backend's turn: its clock runs from now."""
        self._awaits_client = False
        self._touch()

    def _touch(self) -> None:
        if self._reading_paused or (self._awaits_client and not self.has_head):
            self.deadline = math.inf
        else:
            self.deadline = self._clock() + self._idle_seconds

    def write(self, data: bytes) -> None:
        """Sends, or does nothing on a connection that is gone: whoever waits for its answer is told."""
        self._touch()
        if self._asked_at < 0:
            self._asked_at = self._outbox.flushes
        if self._transport is not None and not self._transport.is_closing():
            self._outbox.write(self._transport, data, self)

    @property
    def _lies_in_outbox(self) -> bool:
        """Whether the request was written, but nothing of it has been sent yet."""
        return self._asked_at == self._outbox.flushes

    def note_dropped(self) -> None:
        """Called by the outbox: the connection is closing, but its end was not told yet."""
        self.has_dropped = True

    def until_writable(self) -> asyncio.Future[None] | None:
        """Back-pressure: what to await before the next look, None when the backend takes more.

        Raises when the connection is gone.
        """
        if self._error is not None:
            raise self._error
        if not self._writing_paused:
            return None
        self._writable = self._loop.create_future()
        return self._writable

    # --- the answer ---

    def arrival(self) -> asyncio.Future[None]:
        """What to await until something has changed: bytes, the end. Raises BackendUnavailable or BackendTimedOut."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        return self._waiter

    def on_arrival(self, woken: Woken) -> None:
        """As `arrival`, for who is called back: once, as soon as there is a head or a failure. Nothing is raised."""
        self._woken = woken

    @property
    def error(self) -> Exception | None:
        """What ended the connection."""
        return self._error

    @property
    def is_full(self) -> bool:
        """Whether the answer is complete, or as much of it is here as is held."""
        return self.is_complete or self._reading_paused

    def take(self) -> bytes:
        """All body bytes that are here."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered_bytes = 0
        if self._reading_paused:
            self._resume_reading()
        return data

    def _wake(self) -> None:
        woken, self._woken = self._woken, None
        if woken is not None:
            woken()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # --- asyncio's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BYTES_HIGH)

    def data_received(self, data: bytes) -> None:
        if not self._busy or self.is_complete:
            # Nothing was asked: bytes now would become the next request's answer.
            self._error = Malformed("bytes after the end of an answer")
            self.abort()
            return
        if self._lies_in_outbox:
            # Whatever this answers, it is another request.
            self.has_dropped = True
            self._refuse(Malformed("bytes before the request was sent"))
            return
        may_repeat = self._may_repeat()
        if may_repeat and self._repeats(data):
            self._wake()
            return
        self._unbodied_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if may_repeat and self.is_complete:
                self._learn(data)
        except httptools.HttpParserUpgrade as stop:
            self._switch(data[stop.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(error.__context__ if isinstance(error.__context__, Malformed) else error)
        if self._unbodied_bytes > HEAD_BYTES_MAX and not self.is_complete:
            self._refuse(Malformed("head, trailers or chunk extensions too large"))
        if self._buffered_bytes > BUFFER_BYTES_HIGH and not self._reading_paused:
            self._pause_reading()
        if not self.is_complete:
            self._touch()
        if self.has_head:
            self._wake()

    def _switch(self, said: bytes) -> None:
        """The head of a 101 ends here; `said` is in the new protocol, and what follows waits for `hand_over`."""
        if self.status != SWITCHING:
            self._refuse(Malformed("switched protocols unasked"))
            return
        self.has_head = True
        if said:
            self._chunks.append(said)
        self._pause_reading()

    def hand_over(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """After a 101: the connection is `protocol`'s, with what the backend has said already. Reading is paused.

        Until the request is ended here the connection still counts as busy. Raises BackendUnavailable when it is gone.
        """
        if self._transport is None or not self.is_usable:
            raise BackendUnavailable
        self._transport.set_protocol(protocol)
        said = b"".join(self._chunks)
        self._chunks.clear()
        return self._transport, said

    def _refuse(self, why: BaseException) -> None:
        error = BackendUnavailable()
        error.__cause__ = why
        self.fail(error)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.has_dropped = self.has_dropped or self._lies_in_outbox
        if self._busy and not self.is_complete:
            if self.has_head and self.framed_by == "close" and exc is None and self._error is None:
                self.is_complete = True
            elif self._error is None:
                self._error = BackendUnavailable()
                self._error.__cause__ = exc or ConnectionResetError("closed before the end of its answer")
        self._writing_paused = False
        self._wake()
        self._wake_writer()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._touch()
        self._wake_writer()

    def _pause_reading(self) -> None:
        self._reading_paused = True
        self._touch()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        self._reading_paused = False
        self._touch()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
