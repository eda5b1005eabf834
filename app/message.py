"""A client's request as the door read it: exact bytes, strictly checked, its body in bounded memory."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from typing import Final, Literal

from app.core.errors import BodyTooLarge, GatewayError, MalformedRequest, TargetTooLong
from app.core.relay import headers

Fields = list[tuple[bytes, bytes]]
TARGET_BYTES_MAX: Final = 8_192
BUFFER_BYTES_HIGH: Final = 65_536
DRAIN_BYTES_MAX: Final = 65_536
PIECE_BYTES: Final = 64
"""What a piece takes beside its bytes: chunks of one byte each must not hold forty times what they bring."""

METHOD_BYTES_MAX: Final = 32
LINE_BYTES_MAX: Final = METHOD_BYTES_MAX + TARGET_BYTES_MAX + len(" " + " HTTP/1.1")

_LINE: Final = re.compile(
    rb"([!#$%%&'*+.^_`|~0-9A-Za-z-]{1,%d}) (/[\x21\x22\x24-\x7e]*|\*) HTTP/1\.([01])" % METHOD_BYTES_MAX
)
"""Only what can be forwarded byte for byte: origin form, and `*` for OPTIONS (RFC 9112 section 3). A fragment (`#`)
belongs to no request target."""
_USER_INFO: Final = re.compile(rb"(?<=:)//[^/?#]*@")
"""Of an absolute target (RFC 3986 section 3.2.1)."""
_INVISIBLE: Final = re.compile(rb"[^\x21-\x7e]")
_METHOD: Final = re.compile(rb"([!#$%%&'*+.^_`|~0-9A-Za-z-]{1,%d})(?: |\Z)" % METHOD_BYTES_MAX)
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
"""uri-host and port (RFC 9110 section 7.2)."""

NO_TUNNELS: Final = "CONNECT is not supported"
TARGET_EXPECTED: Final = "malformed request target, expected a path that starts with '/'"


class ClientGone(Exception):
    """The client hung up before its request was whole."""


class Body:
    """A request's body on its way to the backend, buffered up to a bound. `length` is None for chunked, 0 for none.

    Fed by the connection, read by one reader. Serves `app.core.relay.upstream.Outgoing`.
    """

    __slots__ = (
        "_chunks",
        "_error",
        "_has_ended",
        "_pause",
        "_resume",
        "_waiter",
        "buffered_bytes",
        "bytes_max",
        "is_whole",
        "length",
        "size",
        "trailers",
    )

    def __init__(self, length: int | None, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self.length = length
        self.size = 0
        self.buffered_bytes = 0
        self.bytes_max = sys.maxsize
        self.is_whole = length == 0
        self.trailers: Fields = []
        self._chunks: list[bytes] = []
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._has_ended = False
        self._pause = pause
        self._resume = resume

    @property
    def is_worth_draining(self) -> bool:
        """Whether a rest that nobody wants will come and is small enough to be read: then the connection can go on."""
        if self.is_whole or self._error is not None:
            return self.is_whole
        return self.length is not None and self.length <= DRAIN_BYTES_MAX

    def limit(self, bytes_max: int) -> BodyTooLarge | None:
        """Bounds the body from now on: refuses at once what is known to be too large, fails when it grows too large."""
        self.bytes_max = bytes_max
        return BodyTooLarge() if max(self.size, self.length or 0) > bytes_max else None

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self.bytes_max:
            self.fail(BodyTooLarge())
        if self._error is not None:
            return  # nobody will want it
        self._chunks.append(data)
        self.buffered_bytes += len(data) + PIECE_BYTES
        if self.buffered_bytes > BUFFER_BYTES_HIGH:
            self._pause()
        self._wake()

    def finish(self) -> None:
        self.is_whole = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """The rest will not come: `error` reaches the reader after what is here already."""
        if self._error is None and not self.is_whole:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def take(self) -> bytes:
        """Everything that is here and was not taken yet."""
        data = b"".join(self._chunks)
        self._chunks.clear()
        self.buffered_bytes = 0
        self._resume()
        return data

    async def read(self) -> bytes:
        """The next bytes, empty at the end. Raises ClientGone, MalformedRequest, BodyTooLarge, RequestTimedOut."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.is_whole:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if isinstance(self._error, BodyTooLarge):
            raise self._error
        return self.take()

    def encode_rest(self) -> bytes:
        """The rest of a body that `is_whole`, framed as the client framed it."""
        data = self.take()
        if self.length is not None:
            return data
        return (b"%x\r\n%b\r\n" % (len(data), data) if data else b"") + self._last_chunk()

    async def piece(self) -> bytes:
        """The next piece of the body, framed as the client framed it; empty after the last. Raises as `read` does."""
        data = await self.read()
        if self.length is not None:
            return data
        if data:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self._has_ended:
            return b""
        self._has_ended = True
        return self._last_chunk()

    def _last_chunk(self) -> bytes:
        return b"0\r\n%b\r\n" % b"".join(headers.trailers(self.trailers))


class Message:
    """One request head. `error` is set instead of everything else that could not be read.

    `onward`: its fields as a backend gets them, once somebody has asked (outbound.py).
    `upgrade`: the protocol that it asks to switch to, where that may be passed on.
    """

    __slots__ = (
        "body",
        "credentials",
        "error",
        "fields",
        "has_expectation",
        "has_length",
        "host",
        "keep_alive",
        "method",
        "onward",
        "target",
        "upgrade",
        "version",
    )

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.version: Literal["1.0", "1.1"] = "1.1"
        self.fields: Fields = []
        self.host: bytes | None = None
        self.credentials: list[bytes] = []
        self.has_length = self.has_expectation = False
        self.keep_alive = False
        self.body: Body = NO_BODY
        self.upgrade: bytes | None = None
        self.error: GatewayError | None = None
        self.onward: bytes | None = None

    @property
    def is_plain(self) -> bool:
        """Whether nothing but the fields' own bytes decides what they mean: no body, expectation, upgrade, farewell."""
        if self.has_length or self.has_expectation or self.upgrade:
            return False
        return self.keep_alive and self.body is NO_BODY

    def repeat(self, earlier: Message) -> None:
        """Takes over what was made of the very same bytes: fields, and what was derived from them."""
        self.fields = earlier.fields
        self.host = earlier.host
        self.credentials = earlier.credentials
        self.onward = earlier.onward
        self.keep_alive = True

    def read_line(self, data: bytes, end: int) -> GatewayError | None:
        """Takes method, target and version from `data[:end]`. Of a bad line, what the log can use is kept."""
        found = _LINE.fullmatch(data, 0, end)
        if found is None:
            return self._find_fault(data[:end])
        self.method, self.target, minor = found.groups()
        self.version = "1.1" if minor == b"1" else "1.0"
        if self.method == b"CONNECT":
            return MalformedRequest(NO_TUNNELS)
        if self.target == b"*" and self.method != b"OPTIONS":
            return MalformedRequest(TARGET_EXPECTED)
        return TargetTooLong() if len(self.target) > TARGET_BYTES_MAX else None

    def _find_fault(self, line: bytes) -> GatewayError:
        method = _METHOD.match(line)
        if method is None:
            return MalformedRequest("malformed request method")
        self.method = method[1]
        if self.method == b"CONNECT":
            return MalformedRequest(NO_TUNNELS)
        target, _, _ = line[method.end() :].partition(b" ")
        self.target = _loggable(target)
        if len(target) > TARGET_BYTES_MAX:
            return TargetTooLong()
        if _LINE.fullmatch(b"%b %b HTTP/1.1" % (self.method, target)) is None:
            return MalformedRequest(TARGET_EXPECTED)
        return MalformedRequest("malformed request line, expected HTTP/1.1 or HTTP/1.0 after one space")

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for a 100 before it sends its body (RFC 9110 section 10.1.1)."""
        if not self.has_expectation or self.version == "1.0" or self.body is NO_BODY:
            return False
        return any(value.strip().lower() == b"100-continue" for value in headers.values(self.fields, b"expect"))


def _loggable(target: bytes) -> bytes:
    """Of a refused target, what may stand in the log: no fragment, no password, nothing that a terminal would obey."""
    return _INVISIBLE.sub(lambda found: b"\\x%02x" % found[0][0], _USER_INFO.sub(b"//", target.partition(b"#")[0]))


def begins_like_a_request(data: bytes) -> bool:
    """Whether more bytes could make a request line of it: what is none (TLS on this port, say) is answered at once."""
    return _METHOD.match(data) is not None


def judge_host(values: list[bytes], version: str) -> GatewayError | None:
    """Exactly one well-formed Host, which HTTP/1.0 may omit (RFC 9112 section 3.2)."""
    if not values and version == "1.0":
        return None
    if len(values) != 1:
        return MalformedRequest("exactly one Host header is required")
    return None if _HOST.fullmatch(values[0]) else MalformedRequest("malformed Host header")


def _nothing() -> None:
    return None


NO_BODY: Final = Body(0, _nothing, _nothing)
