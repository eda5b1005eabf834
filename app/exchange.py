"""One request and its answer on a connection: what Sanic knows as the request's stream.

Writes status line, fields and body for every kind of answer: Sanic's own responses, and relayed ones, whose fields are
ready-made bytes. What the response middleware adds to all of them is `stamp`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from sanic.exceptions import ServerError
from sanic.helpers import STATUS_CODES
from sanic.http.constants import Stage
from sanic.http.stream import Stream
from sanic.response import BaseHTTPResponse

from app.core.relay import headers
from app.message import Message
from app.ready import Mode, ReadyResponse, RelayedResponse

if TYPE_CHECKING:
    from app.door import DoorProtocol
    from app.fast_path import FastPath

CONTINUE_SECONDS: Final = 1.0
_SET_HERE: Final = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive"})


@lru_cache(maxsize=2)
def _date(now: int) -> bytes:
    """RFC 9110 section 6.6.1, for answers of our own."""
    return b"Date: %b\r\n" % formatdate(now, usegmt=True).encode()


@lru_cache(maxsize=1024)
def _status_line(status: int, reason: bytes | None) -> bytes:
    text = STATUS_CODES.get(status, b"Unknown") if reason is None else reason
    return b"HTTP/1.1 %d %b\r\n" % (status, text)


class Exchange(Stream):
    """Sanic's stream interface over one Message. `stage` follows Sanic's: HANDLER, RESPONSE, then IDLE or FAILED."""

    response: BaseHTTPResponse | None = None
    request: Any = None
    stage = Stage.HANDLER
    upgrade_websocket = False
    url = None
    status = body_bytes = 0
    stamp = b""
    trailers: Sequence[bytes] = ()
    fast_path: FastPath | None = None
    """What serves the request as long as it needs no task."""
    _mode: Mode = "none"
    _unsent = 0
    _task: asyncio.Task[Any] | None = None

    def __init__(self, protocol: DoorProtocol, message: Message) -> None:
        self.protocol = self.connection = protocol
        self.message = message
        self.keep_alive = message.keep_alive
        self.request_max_size = protocol.request_max_size

    # --- the course of a request ---

    def make_request(self) -> Any:
        """Sanic's request, of the app's class."""
        make: Any = self.protocol.request_class
        self.request = request = make(message=self.message, exchange=self, app=self.protocol.app)
        return request

    async def run(self, way: Awaitable[None] | None = None) -> bool:
        """Lets Sanic answer, or goes `way`, what is left of that. Whether the connection may carry another request."""
        app = self.protocol.app
        request = self.request or self.make_request()
        if not self.message.body.is_whole:
            self.connection.begin_upload()
        try:
            if way is not None:
                await way
            elif self.message.error is not None:
                await app.handle_exception(request, self.message.error, False)
            else:
                await self.protocol.request_handler(request)
            if self.stage is Stage.HANDLER:
                await app.handle_exception(request, ServerError("Handler produced no response"), False)
        except asyncio.CancelledError:
            self.abandon()
            raise
        except Exception as error:  # noqa: BLE001 - the worker lives on whatever a handler does
            await app.handle_exception(request, error, False)
        finally:
            is_reusable = self.conclude()
        return is_reusable

    def conclude(self) -> bool:
        """To be called once, when there is nothing left to do. Whether the connection may carry another request."""
        if self.stage is Stage.RESPONSE:
            self.fail()
        self.request.finish()
        self._let_go(self.request)
        return self.keep_alive and self.stage is Stage.IDLE

    def _let_go(self, request: Any) -> None:
        """Request, response and exchange know each other; without this only the garbage collector would free them."""
        self.request = self._task = self.fast_path = request.stream = None
        if self.response is not None:
            self.response.stream = None

    @property
    def has_begun(self) -> bool:
        """Whether any of the answer was sent."""
        return self.stage is not Stage.HANDLER

    def depend_on_client(self) -> None:
        """From now on the work is only worth doing while the client is there: its leaving cancels the handler."""
        if self.connection.is_gone:
            raise asyncio.CancelledError
        self._task = self.connection.handler

    def hang_up(self) -> None:
        """The client is gone: cancels the handler if it depends on the client."""
        if self.fast_path is not None:
            self.fast_path.hang_up()
        elif self._task is not None:
            self._task.cancel()

    def abandon(self) -> None:
        """There will be no answer, or no more of it."""
        self.stage = Stage.FAILED
        if not self.connection.is_gone:
            self.connection.reset()

    def cut(self) -> None:
        """The connection is lost, or about to be: ends what is done without a task."""
        if self.fast_path is not None:
            self.fast_path.cancel()

    def fail(self) -> None:
        """The answer cannot be finished: the connection ends so that nobody takes it for whole."""
        self.stage = Stage.FAILED
        self.keep_alive = False
        if self._mode == "close":
            self.connection.reset()  # only that tells a client that reads until the end

    # --- the request's body, as Sanic reads it ---

    @property
    def request_body(self) -> bool:  # type: ignore[override]
        """Whether there is a body to read."""
        body = self.message.body
        return not body.is_whole or body.buffered_bytes > 0

    async def read(self) -> bytes | None:
        """The next bytes of the body, None at its end."""
        return await self.message.body.read() or None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.message.body.read():
            yield data

    async def promise_continue(self) -> None:
        """Sends the 100 that the client waits for when the backend does not, in the time that clients usually give."""
        await asyncio.sleep(CONTINUE_SECONDS)
        if self.message.body.size == 0:
            self.send_interim(100, [])

    def send_interim(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        """Passes a 1xx answer on. HTTP/1.0 knows none (RFC 9110 section 15.2)."""
        if self.stage is Stage.HANDLER and self.message.version != "1.0" and self.connection.transport is not None:
            lines = b"".join(headers.to_client(fields, has_length=False))
            self.connection.write(_status_line(status, None) + lines + b"\r\n")

    # --- the answer ---

    def switch_protocols(self, response: RelayedResponse) -> None:
        """Sends the 101, after which nothing on this connection is HTTP."""
        self.status, self.stage, self.keep_alive = response.status, Stage.IDLE, False
        head = (_status_line(response.status, response.reason), *response.lines, self.stamp, b"\r\n")
        if self.connection.transport is not None:
            self.connection.write(b"".join(head))

    def respond(self, response: BaseHTTPResponse) -> BaseHTTPResponse:
        if self.stage is not Stage.HANDLER:
            raise ServerError("Response already started")
        if self.response is not None:
            self.response.stream = None
        self.response = response
        response.stream = self  # type: ignore[assignment]
        return response

    @property
    def send(self) -> Callable[..., Awaitable[None]] | None:
        """What a response calls with (data, end_stream); None once the answer has ended."""
        return self.write if self.stage in (Stage.HANDLER, Stage.RESPONSE) else None

    async def write(self, data: bytes, end_stream: bool = False) -> None:
        """Sends head and body as far as they are known now, once the client takes more."""
        if not self.can_write:
            await self.connection._can_write.wait()
        self.write_now(data, end_stream)

    @property
    def can_write(self) -> bool:
        """Whether the client takes what it is sent."""
        return self.connection._can_write.is_set()

    def write_now(self, data: bytes, end_stream: bool = False) -> None:
        """The same without asking."""
        protocol = self.connection
        response = self.response
        if response is None or protocol.transport is None:
            return
        head = b""
        if self.stage is Stage.HANDLER:
            if not data and response.body and not isinstance(response, RelayedResponse):
                data, end_stream = response.body, True
            head = self._head(response, len(data), end_stream)
            self.stage = Stage.RESPONSE
        out = head + self._framed(data, end_stream)
        if out:
            protocol.write(out)
        if end_stream and self.stage is Stage.RESPONSE:
            self.stage = Stage.IDLE

    def _head(self, response: BaseHTTPResponse, size: int, end_stream: bool) -> bytes:
        """Status line and fields; decides how the body is framed."""
        self.status = status = response.status
        if isinstance(response, RelayedResponse):
            lines, reason = response.lines, response.reason
            self._mode, self._unsent = response.framed_by, -1  # the backend's parser has counted
        else:
            lines, reason = self._own_lines(response, size, end_stream), None
        framing = self._frame(status)
        if not self._may_continue():
            self.keep_alive = False
        connection = b"" if self.keep_alive else b"Connection: close\r\n"
        return b"".join((_status_line(status, reason), *lines, framing, connection, self.stamp, b"\r\n"))

    def _own_lines(self, response: BaseHTTPResponse, size: int, end_stream: bool) -> list[bytes]:
        """Fields of an answer made by Sanic or by us, with the length where it is known."""
        if isinstance(response, ReadyResponse):
            lines, announced = response.lines, None
        else:
            fields = [field for field in response.processed_headers if field[0].lower() not in _SET_HERE]
            lines, announced = [b"%b: %b\r\n" % field for field in fields], response.headers.get("content-length")
        lines.append(_date(int(time.time())))
        if end_stream or announced is not None:
            length = size if end_stream or announced is None else int(announced)
            self._mode, self._unsent = "length", length
            if response.status not in (204, 304):
                lines.append(b"Content-Length: %d\r\n" % length)
        else:
            self._mode = "chunked"
        return lines

    def _frame(self, status: int) -> bytes:
        """Settles `_mode` for this client and returns the field that goes with it."""
        if self.message.method == b"HEAD" or status in (204, 304):
            self._mode = "none"
        elif self._mode in ("chunked", "close"):
            if self.message.version == "1.0":
                self._mode = "close"
                self.keep_alive = False
            else:
                self._mode = "chunked"
                return b"Transfer-Encoding: chunked\r\n"
        return b""

    def _may_continue(self) -> bool:
        """Whether the connection is worth keeping: not while much of an unwanted body is to come, or perhaps none.

        Who was not told to continue may send its next request where we expect the body (RFC 9110 section 10.1.1).
        """
        body = self.message.body
        if not self.keep_alive or self.connection.is_draining or (body.size == 0 and self.message.expects_continue):
            return False
        return body.is_worth_draining or self.response_needs_body()

    def response_needs_body(self) -> bool:
        """A relayed answer may come before the request is whole; the rest is still wanted then."""
        return isinstance(self.response, RelayedResponse)

    def _framed(self, data: bytes, end_stream: bool) -> bytes:
        mode = self._mode
        if mode == "none":
            return b""
        self.body_bytes += len(data)
        if mode == "length" and self._unsent >= 0:
            self._unsent -= len(data)
            if self._unsent < 0 or (end_stream and self._unsent):
                raise ServerError("Response does not have the length that it announced")
        if mode != "chunked":
            return data
        framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        if not end_stream:
            return framed
        return framed + (b"0\r\n%b\r\n" % b"".join(self.trailers) if self.trailers else b"0\r\n\r\n")
