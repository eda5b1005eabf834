"""An answer on its way to one client: status line, fields and framed body, as bytes. No I/O.

How the body is framed depends on the answer and on the client.
"""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from typing import Final, Literal

from sanic.exceptions import ServerError
from sanic.helpers import STATUS_CODES

from app.body import NO_BODY
from app.core.relay import headers
from app.message import Message
from app.relayed import Relayed

Mode = Literal["length", "chunked", "close", "none"]
_COUNTED: Final = -1
"""Instead of the bytes that are to come yet: somebody else counts them (the backend's parser)."""


@lru_cache(maxsize=2)
def date_line(now: int) -> bytes:
    """RFC 9110 section 6.6.1, for answers of our own."""
    return b"Date: %b\r\n" % formatdate(now, usegmt=True).encode()


@lru_cache(maxsize=1024)
def status_line(status: int, reason: bytes | None) -> bytes:
    """`reason` None: the customary one."""
    text: bytes = STATUS_CODES.get(status, b"Unknown") if reason is None else reason
    return b"HTTP/1.1 %d %b\r\n" % (status, text)


def interim(status: int, fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A 1xx answer as it is passed on."""
    return status_line(status, None) + b"".join(headers.to_client(fields, has_length=False)) + b"\r\n"


class AnswerWriter:
    """One answer. `status` and `body_bytes` (0 before its head is made) are for the log.

    `keep_alive`: whether the connection may carry another request afterwards, as far as is known.
    """

    __slots__ = ("_message", "_mode", "_unsent", "body_bytes", "keep_alive", "status", "trailers")

    def __init__(self, message: Message) -> None:
        self._message = message
        self._mode: Mode = "none"
        self._unsent = 0
        self.keep_alive = message.keep_alive
        self.status = 0
        self.body_bytes = 0
        self.trailers: Sequence[bytes] = ()

    @property
    def ends_with_connection(self) -> bool:
        """Whether the client takes the connection's end for the end of the body."""
        return self._mode == "close"

    def relayed_head(self, head: Relayed, stamp: bytes, *, is_draining: bool) -> bytes:
        """Of a backend's answer, whose framing is the backend's. `is_draining`: the connection's last answer."""
        self._mode, self._unsent = head.framed_by, _COUNTED
        return self._head(head.status, head.reason, head.lines, stamp, is_relayed=True, is_draining=is_draining)

    def own_head(
        self, status: int, lines: list[bytes], length: int | None, stamp: bytes, *, is_draining: bool
    ) -> bytes:
        """Of an answer made here, whose body has `length`; None: that is not known yet."""
        self._mode, self._unsent = ("length", length) if length is not None else ("chunked", _COUNTED)
        if length is not None and status != 204 and status != 304:
            lines.append(b"Content-Length: %d\r\n" % length)
        return self._head(status, None, lines, stamp, is_relayed=False, is_draining=is_draining)

    def _head(
        self,
        status: int,
        reason: bytes | None,
        lines: list[bytes],
        stamp: bytes,
        *,
        is_relayed: bool,
        is_draining: bool,
    ) -> bytes:
        self.status = status
        framing = self._framing(status)
        if not self._may_continue(is_relayed, is_draining):
            self.keep_alive = False
        connection = b"" if self.keep_alive else b"Connection: close\r\n"
        return b"".join((status_line(status, reason), *lines, framing, connection, stamp, b"\r\n"))

    def _framing(self, status: int) -> bytes:
        """Settles the mode for this client and returns the field that goes with it."""
        if self._message.method == b"HEAD" or status == 204 or status == 304:
            self._mode = "none"
        elif self._mode == "chunked" or self._mode == "close":
            if self._message.version == "1.0":
                self._mode = "close"
                self.keep_alive = False
            else:
                self._mode = "chunked"
                return b"Transfer-Encoding: chunked\r\n"
        return b""

    def _may_continue(self, is_relayed: bool, is_draining: bool) -> bool:
        """Whether the connection is worth keeping: not while much of an unwanted body is to come, or perhaps none.

        Who was not told to continue may send its next request where we expect the body (RFC 9110 section 10.1.1). A
        relayed answer may come before the request is whole; the rest is still wanted then.
        """
        message = self._message
        if not self.keep_alive or is_draining:
            return False
        body = message.body
        if body is NO_BODY:
            return True
        if body.size == 0 and message.expects_continue:
            return False
        return is_relayed or body.is_worth_draining

    def framed(self, data: bytes, *, is_last: bool) -> bytes:
        """The next bytes of the body as they go out. Raises ServerError when it is not as long as announced."""
        mode = self._mode
        if mode == "none":
            return b""
        self.body_bytes += len(data)
        if mode == "chunked":
            return self._chunk(data, is_last)
        if mode == "length" and self._unsent >= 0:
            self._unsent -= len(data)
            if self._unsent < 0 or (is_last and self._unsent):
                raise ServerError("Response does not have the length that it announced")
        return data

    def _chunk(self, data: bytes, is_last: bool) -> bytes:
        chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        if not is_last:
            return chunk
        return chunk + (b"0\r\n%b\r\n" % b"".join(self.trailers) if self.trailers else b"0\r\n\r\n")
