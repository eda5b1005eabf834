"""From a connection's bytes to Messages: llhttp parses, strictly, and what it leaves open is checked here. No I/O.

In bounded memory: when enough waits in the queue, or in a body, the connection is told to pause.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import httptools

from app.body import BUFFER_BYTES_HIGH, NO_BODY, Body, ClientGone
from app.core.errors import GatewayError, HeadersTooLarge, MalformedRequest, TargetTooLong
from app.core.relay import upgrade
from app.message import LINE_BYTES_MAX, TARGET_BYTES_MAX, Message, begins_like_a_request, judge_host

HEAD_BYTES_MAX: Final = 16_384
"""Also for what comes between two pieces of a body: chunk extensions, trailers."""
FIELDS_MAX: Final = 100
PIPELINE_MAX: Final = 16
LENGTH_DIGITS_MAX: Final = 20
"""Of 2^64, which is as far as llhttp counts. It takes any number of zeros before; int() does not."""
PLAIN_BYTES_MAX: Final = 4_096
"""Fields that are remembered for the connection's next request: most have far fewer, and idle connections are many."""
_LOOKED_AT: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"authorization", b"expect"})
_LOOKED_AT_BYTES_MAX: Final = 17
"""Of their names. Longer ones are not asked about: `_known` would remember them, thousands of up to 16 kB each."""

_EMPTY_LINE: Final = b"\r\n\r\n"
_STAND_IN: Final = b"POST"
_PARSED_METHODS: Final = frozenset(
    b"DELETE GET HEAD POST PUT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND UNBIND "
    b"ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PATCH PURGE MKCALENDAR LINK UNLINK "
    b"QUERY".split()
)
"""Methods that llhttp knows. Any other token is read under a stand-in whose framing rules are the same."""


@lru_cache(maxsize=4096)  # the names that clients use are few
def _known(name: bytes) -> bytes | None:
    """The lower-case name of a field that is looked at here."""
    key = name.lower()
    return key if key in _LOOKED_AT else None


class Reader:
    """`feed` bytes, take Messages from `queue`. Their bodies go on being filled while they are served.

    After a request to switch protocols nothing is read until it is known whose the bytes are: `stay` or `take_held`.
    `is_broken`: nothing more is read. `in_head`: a request has begun to arrive. `body`: the one that is arriving.
    """

    __slots__ = (
        "_between",
        "_fields_at",
        "_held",
        "_is_priming",
        "_is_waiting",
        "_message",
        "_parser",
        "_pause",
        "_plain",
        "_plain_fields",
        "_resume",
        "_tail",
        "_unbodied_bytes",
        "body",
        "in_head",
        "is_broken",
        "queue",
    )

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self.queue: deque[Message] = deque()
        self.body: Body | None = None
        self.in_head = self.is_broken = False
        self._pause = pause
        self._resume = resume
        self._parser = httptools.HttpRequestParser(self)
        self._message = Message()
        self._held = self._tail = b""
        self._plain_fields, self._plain = b"", self._message
        self._fields_at = 0
        self._between = True
        self._is_priming = self._is_waiting = False
        self._unbodied_bytes = 0

    # --- the connection's side ---

    @property
    def is_between(self) -> bool:
        """Whether the last request is whole, and nothing of the next one is here."""
        return self._between and not self.is_broken

    @property
    def is_full(self) -> bool:
        """Whether enough pipelined requests wait already."""
        queue = self.queue
        if not queue:
            return False
        return len(queue) >= PIPELINE_MAX or sum(each.body.buffered_bytes for each in queue) > BUFFER_BYTES_HIGH

    def feed(self, data: bytes) -> None:
        """Reads as far as there is room; the rest is held for the next call, which may bring nothing new."""
        if self.is_broken:  # what follows a malformed request is not looked at
            self._hold(data)
            return
        if self._held:
            data, self._held = self._held + data, b""
        try:
            while data and not self.is_broken:
                data = self._begin(data) if self._between else self._parse(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self.refuse(cause if isinstance(cause, GatewayError) else MalformedRequest(f"malformed request: {error}"))

    def refuse(self, error: GatewayError) -> None:
        """Reads no further: `error` becomes the end of the body that is arriving, or else the last of the queue."""
        self.is_broken = True
        if self.body is not None and not self.body.is_whole:
            self.body.fail(error)
            return
        message = self._message if self.in_head else Message()
        self.in_head = False
        message.error = error
        message.keep_alive = False
        message.body = NO_BODY
        self.queue.append(message)

    def stay(self) -> None:
        """There is no switch of protocols: what was held are requests."""
        self.is_broken = self._is_waiting = False

    def take_held(self) -> bytes:
        """There is a switch: from here on the bytes are the new protocol's."""
        held, self._held = self._held, b""
        self._is_waiting = False
        return held

    def hang_up(self) -> None:
        """The client is gone: what is arriving will not be whole."""
        if self.body is not None:
            self.body.fail(ClientGone())

    # --- between two requests ---

    def _begin(self, data: bytes) -> bytes:
        """Reads the request line once it is whole, as llhttp is lenient about it. Returns what is to be read next."""
        if data[0] == 13 or data[0] == 10:  # CR, LF
            data = data.lstrip(b"\r\n")  # RFC 9112 section 2.2
        if not data:
            return b""
        if self.is_full:
            self._held = data
            self._pause()
            return b""
        if not self.in_head:
            self.in_head = True
            self._message = Message()
        message, end = self._message, data.find(b"\r\n")
        if end < 0 and len(data) <= LINE_BYTES_MAX and begins_like_a_request(data):
            self._held = data
            return b""
        if error := message.read_line(data, len(data) if end < 0 else end):
            self.refuse(error)
            return b""
        if data.startswith(self._plain_fields, end) and self._plain_fields:
            rest = end + len(self._plain_fields)
            if message.version == "1.1" and rest <= HEAD_BYTES_MAX:
                self._repeat(message)
                return data[rest:]
        self._between = False
        method = message.method
        known = method in _PARSED_METHODS
        self._fields_at = end if known else end - len(method) + len(_STAND_IN)
        return data if known else _STAND_IN + data[len(method) :]

    def _repeat(self, message: Message) -> None:
        """Most connections say the same fields again and again: what llhttp and we made of these bytes still holds.

        Its parser is between two messages and need not know: a plain request leaves no trace in it.
        """
        message.repeat(self._plain)
        self.in_head = False
        self.queue.append(message)

    # --- within one ---

    def _parse(self, data: bytes) -> bytes:
        """Parses up to where the message may end: the next one has to be met at its first byte. Returns the rest."""
        end = self._end(data)
        self._unbodied_bytes += end
        fields_at, self._fields_at = self._fields_at, 0
        try:
            self._parser.feed_data(data if end == len(data) else data[:end])
            is_short = end - fields_at <= PLAIN_BYTES_MAX
            if fields_at and is_short and self._between and self.queue[-1].is_plain:
                self._plain_fields, self._plain = data[fields_at:end], self.queue[-1]
        except httptools.HttpParserUpgrade:
            self._renew_parser()
            data = self._wait_for_switch(data, end)
        if self._unbodied_bytes > HEAD_BYTES_MAX:
            self.refuse(self._too_large())
        return data[end:]

    def _end(self, data: bytes) -> int:
        """How many bytes of `data` can belong to this message: the rest of its length, or up to the next empty line."""
        if self.body is not None and self.body.length is not None:
            return min(len(data), self.body.length - self.body.size)
        for count in range(len(self._tail), 0, -1):  # an empty line that came in pieces
            if self._tail[-count:] == _EMPTY_LINE[:count] and data.startswith(_EMPTY_LINE[count:]):
                self._tail = b""
                return 4 - count
        found = data.find(_EMPTY_LINE, 0, HEAD_BYTES_MAX)
        end = found + 4 if found >= 0 else min(len(data), HEAD_BYTES_MAX)
        self._tail = b"" if found >= 0 else (self._tail + data[max(0, end - 3) : end])[-3:]
        return end

    def _wait_for_switch(self, data: bytes, end: int) -> bytes:
        """Holds what follows a request whose wish to switch may be passed on. Returns what may be read.

        RFC 9110 section 7.8: HTTP/1.1 only. A body would have to come before the new protocol; nobody sends one.
        """
        message = self.queue[-1]
        if message.method == b"GET" and message.version == "1.1" and message.body is NO_BODY:
            message.upgrade = upgrade.asked_for(message.fields)
        if message.upgrade is None:
            return data
        self.is_broken = self._is_waiting = True
        self._hold(data[end:])
        return data[:end]

    def _hold(self, data: bytes) -> None:
        """Keeps what came while a switch is being decided: at most what was read at once, then reading pauses."""
        if self._is_waiting:
            self._held += data
            if self._held:
                self._pause()

    def _renew_parser(self) -> None:
        """llhttp stops at a head that asks to switch protocols. Nothing may come of that, so it has to go on.

        A fresh parser is told of the body's framing only, then reads the rest.
        """
        body = self.queue[-1].body
        self._parser = httptools.HttpRequestParser(self)
        if body is not NO_BODY:
            framing = b"Transfer-Encoding: chunked" if body.length is None else b"Content-Length: %d" % body.length
            self._is_priming = True
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
            self._is_priming = False
            self.body = body
            self._between = False

    def _too_large(self) -> GatewayError:
        return TargetTooLong() if len(self._message.target) > TARGET_BYTES_MAX else HeadersTooLarge()

    # --- llhttp's side ---

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_priming:
            return
        fields = self._message.fields if self.body is None else self.body.trailers
        if len(fields) >= FIELDS_MAX:
            raise HeadersTooLarge
        fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        if self._is_priming:
            return
        if not self.in_head:
            raise MalformedRequest  # a request whose first byte we did not see
        message = self._message
        error = self._too_large() if self._unbodied_bytes > HEAD_BYTES_MAX else self._judge(message)
        if error is not None:
            raise error
        self.in_head = False
        self._unbodied_bytes = 0
        self.body = message.body
        self.queue.append(message)

    def on_body(self, data: bytes) -> None:
        self._unbodied_bytes = 0
        if self.body is not None:
            self.body.feed(data)

    def on_message_complete(self) -> None:
        if self.body is not None and self.body is not NO_BODY and not self._parser.should_upgrade():
            self.body.finish()
        self.body = None
        self._between = True
        self._unbodied_bytes = 0

    def _judge(self, message: Message) -> GatewayError | None:
        """Checks what llhttp leaves open and fills in what depends on several fields."""
        hosts, length, chunked = [], 0, False
        for name, value in message.fields:
            key = _known(name) if len(name) <= _LOOKED_AT_BYTES_MAX else None
            if key is None:
                continue
            if key == b"host":
                hosts.append(value)
            elif key == b"content-length":
                if len(value) > LENGTH_DIGITS_MAX:
                    return MalformedRequest("malformed Content-Length")
                length = int(value)
                message.has_length = True
            elif key == b"transfer-encoding":
                chunked = True
                if value.lower() != b"chunked" or message.version == "1.0":
                    return MalformedRequest("unsupported Transfer-Encoding")
            elif key == b"authorization":
                message.credentials.append(value)
            else:
                message.has_expectation = True
        message.host = hosts[0] if hosts else None
        message.keep_alive = message.version == "1.1" and self._parser.should_keep_alive()
        if chunked or length:
            message.body = Body(None if chunked else length, self._pause, self._resume)
        return judge_host(hosts, message.version)
