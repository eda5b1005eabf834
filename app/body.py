"""The body of a client's request: pieces on their way to the backend, in bounded memory."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Final

from app.core.errors import BodyTooLarge
from app.core.relay import headers

Fields = list[tuple[bytes, bytes]]
BUFFER_BYTES_HIGH: Final = 65_536
DRAIN_BYTES_MAX: Final = 65_536
PIECE_BYTES: Final = 64
"""What a piece takes beside its bytes: chunks of one byte each must not hold forty times what they bring."""


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
        if self._error is not None:  # it outgrew its limit on the way: what is here is not all of it
            raise self._error
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


def _nothing() -> None:
    return None


NO_BODY: Final = Body(0, _nothing, _nothing)
