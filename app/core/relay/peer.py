"""One connection to a backend: what it said, strictly parsed by llhttp, in bounded memory."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Literal, cast

import httptools

from app.core.errors import BackendFailed, BackendUnavailable
from app.core.model import Backend
from app.core.relay import upgrade
from app.core.relay.headers import FRAMING
from app.core.relay.known_lines import FIELDS_MAX, KnownHead, KnownLines
from app.core.relay.outbox import Outbox

Fields = list[tuple[bytes, bytes]]
Woken = Callable[[], None]
Interim = Callable[[int, Fields], None]
Framing = Literal["length", "chunked", "close", "none"]

HEAD_BYTES_MAX: Final = 65_536
"""Also what may come between two pieces of a body: chunk extensions, trailers."""
INTERIM_MAX: Final = 16
BUFFER_BYTES_HIGH: Final = 262_144
WRITE_BYTES_HIGH: Final = 262_144
SWITCHING: Final = 101
HOPE: Final = 16
HOPELESS_LOOKS: Final = 32
"""After so many answers in a row with a line that was not known, only each 32nd is looked at for known ones."""


_known = KnownLines()
_REASON: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


@lru_cache(maxsize=1024)  # the reasons that backends use are few
def _is_reason(reason: bytes) -> bool:
    """RFC 9112 section 4. llhttp takes any control character but the two of a line's end."""
    return _REASON.fullmatch(reason) is not None


class Malformed(Exception):
    """What the backend sent is no HTTP that may be passed on. The cause of a BackendUnavailable, for the log."""


class Peer:
    """Carries one request at a time: `begin`, `write`…, `arrival`s until `has_head`, `take`s, `end`.

    An asyncio.Protocol in all but name: without a base class, mypyc makes a native class of it (compiled.py).

    `deadline` (by the clock given) moves with every byte in either direction. It rests while the client is slow: with
    its upload before there is a head, with reading the answer afterwards.
    """

    __slots__ = (
        "_awaits_client",
        "_buffered_bytes",
        "_busy",
        "_chunks",
        "_clock",
        "_error",
        "_head_only",
        "_hope",
        "_idle_seconds",
        "_in_head",
        "_interim_count",
        "_keep_alive",
        "_loop",
        "_on_interim",
        "_outbox",
        "_parser",
        "_protocol",
        "_reading_paused",
        "_transport",
        "_unbodied_bytes",
        "_waiter",
        "_woken",
        "_writable",
        "_writing_paused",
        "backend",
        "deadline",
        "fields",
        "framed_by",
        "has_head",
        "head_deadline",
        "is_complete",
        "known",
        "reason",
        "status",
        "trailers",
    )
    # Without them: beyond 30 attributes CPython 3.11 gives up its fast instances, which costs half a microsecond.

    def __init__(
        self, backend: Backend, idle_seconds: float, clock: Callable[[], float], outbox: Outbox | None = None
    ) -> None:
        self.backend = backend
        self.deadline = math.inf
        self.head_deadline = math.inf
        """When the head must be here, however much moves meanwhile (1xx answers, say)."""
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._outbox = outbox or Outbox(self._loop)
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._hope = HOPE
        self._busy = False
        self._awaits_client = False
        self._reading_paused = False
        self._writing_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._woken: Woken | None = None
        self._writable: asyncio.Future[None] | None = None
        self._reset(head_only=False, on_interim=None, protocol=None)

    def _reset(self, head_only: bool, on_interim: Interim | None, protocol: bytes | None) -> None:
        self._head_only = head_only
        self._protocol = protocol
        self._on_interim = on_interim
        self._interim_count = 0
        self._unbodied_bytes = 0
        self._error: Exception | None = None
        self._chunks: list[bytes] = []
        self._buffered_bytes = 0
        self._keep_alive = False
        self._in_head = True
        self.has_head = False
        self.is_complete = False
        self.status = 0
        self.reason = b""
        self.fields: Fields = []
        self.trailers: Fields = []
        self.known: KnownHead | None = None
        """The answer's head, where llhttp was not asked."""
        self.framed_by: Framing = "close"

    # --- what the pool asks and does ---

    @property
    def is_usable(self) -> bool:
        """Whether a request may be written: open, and nothing unasked-for has come."""
        return self._transport is not None and not self._transport.is_closing() and self._error is None

    @property
    def has_answered(self) -> bool:
        """Whether a byte of an answer to this request has come."""
        return self.has_head or self._interim_count > 0 or self._unbodied_bytes > 0

    @property
    def failure(self) -> BackendFailed | None:
        """What ended the request, where that was the backend's doing."""
        return self._error if isinstance(self._error, BackendFailed) and not self.is_complete else None

    def is_overdue(self, now: float) -> bool:
        return self.deadline <= now or (not self.has_head and self.head_deadline <= now)

    def begin(self, head_only: bool, on_interim: Interim | None, protocol: bytes | None = None) -> None:
        """`protocol`: what the request asks to switch to; only then may the answer be a 101."""
        self._reset(head_only, on_interim, protocol)
        self._busy = True
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
        if self._transport is not None and not self._transport.is_closing():
            self._outbox.write(self._transport, data)

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
    def has_bytes(self) -> bool:
        """Whether there is something to take, or nothing more will come."""
        return bool(self._chunks) or self.is_complete

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
        if not self.is_complete:
            self._touch()
        if self.has_head:
            self._wake()

    def _may_repeat(self) -> bool:
        """Whether an answer begins here, and this backend does say the same lines again and again."""
        if self._unbodied_bytes or self._interim_count or self._head_only or not self._in_head:
            return False
        if self._hope > 0:
            return True
        self._hope -= 1
        return self._hope % HOPELESS_LOOKS == 0

    def _repeats(self, data: bytes) -> bool:
        """Takes a whole answer whose lines are all known. llhttp, between two messages, need not hear of it."""
        end = data.find(b"\r\n\r\n")
        known = _known.read(data[:end]) if end > 0 else None
        if known is None or len(data) != end + 4 + known.length:
            if self._hope > 0:
                self._hope -= 1
            return False
        self._hope = HOPE
        self.known, self.status, self.reason, self.fields = known, known.status, known.reason, known.fields
        self.framed_by = "length"
        self._in_head = False
        self._keep_alive = self.has_head = self.is_complete = True
        if known.length:
            self._chunks.append(data[end + 4 :])
        return True

    def _learn(self, data: bytes) -> None:
        if self._keep_alive and self.framed_by == "length" and self._parser.get_http_version() == "1.1":
            _known.learn(data[: data.find(b"\r\n\r\n")], self.status, self.reason, self.fields)

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

    # --- llhttp's side ---

    def on_message_begin(self) -> None:
        if not self._in_head:
            # In one segment with the first: it may neither change that one nor become the next request's answer.
            raise Malformed("a second answer")

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        fields = self.fields if self._in_head else self._trailers_with(name)
        if len(fields) >= FIELDS_MAX:
            raise Malformed("too many fields")
        fields.append((name, value.rstrip(b" \t")))

    def _trailers_with(self, name: bytes) -> Fields:
        if name.lower() in FRAMING:
            raise Malformed("framing among the trailers")
        return self.trailers

    def on_headers_complete(self) -> None:
        status, version = self._parser.get_status_code(), self._parser.get_http_version()
        if version not in ("1.1", "1.0") or status > 999 or not _is_reason(self.reason):
            raise Malformed(f"HTTP/{version} {status}")
        if status < 200:
            if status == SWITCHING and self._protocol is not None:
                self._agree(self._protocol)
            else:
                self._interim(status)
            return
        self.status = status
        self.framed_by = self._framing(status)
        # RFC 9112 section 6.1: chunked in HTTP/1.0 is suspect, the connection is not to be used again
        self._keep_alive = self._parser.should_keep_alive() and not (version == "1.0" and self.framed_by == "chunked")
        self._in_head = False
        self.has_head = True
        if self._head_only:
            # llhttp cannot know that the request was HEAD: it would wait for the body that the head announces.
            self.is_complete = True
            self._parser = httptools.HttpResponseParser(self)

    def _agree(self, protocol: bytes) -> None:
        if not (self._parser.should_upgrade() and upgrade.agrees(protocol, self.fields)):
            raise Malformed("a switch to another protocol than was asked for")
        self.status = SWITCHING
        self.framed_by = "none"
        self._in_head = False

    def _interim(self, status: int) -> None:
        self._interim_count += 1
        if status < 100 or status == SWITCHING or self._interim_count > INTERIM_MAX:
            raise Malformed(f"status {status}, interim answer {self._interim_count}")
        self._framing(status)
        if self._on_interim is not None:
            self._on_interim(status, self.fields)

    def _framing(self, status: int) -> Framing:
        framing: Framing = "close"
        for name, value in self.fields:
            key = name.lower()
            if key == b"transfer-encoding":
                if value.lower() != b"chunked" or framing == "chunked":
                    raise Malformed("a transfer coding other than chunked, once")
                framing = "chunked"
            elif key == b"content-length":
                framing = "length"
        return "none" if self._head_only or status in (204, 304) else framing

    def on_body(self, data: bytes) -> None:
        if self._head_only:
            raise Malformed("a body for HEAD")
        self._unbodied_bytes = 0
        self._chunks.append(data)
        self._buffered_bytes += len(data)
        if self._buffered_bytes > BUFFER_BYTES_HIGH and not self._reading_paused:
            self._pause_reading()

    def on_message_complete(self) -> None:
        if self._in_head:  # an interim answer; the final one follows
            self.fields = []
            self.reason = b""
            self._unbodied_bytes = 0
            return
        self._keep_alive = self._keep_alive and self._parser.should_keep_alive()  # a trailer may have said close
        self.is_complete = True
