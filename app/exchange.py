"""One request and its answer on a connection: what Sanic knows as the request's stream.

Puts every kind of answer on the wire: Sanic's own responses, and those whose fields are ready-made bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from sanic.exceptions import ServerError
from sanic.http.constants import Stage
from sanic.http.stream import Stream
from sanic.response import BaseHTTPResponse

from app.answer_writer import AnswerWriter, date_line, interim, status_line
from app.context import Context
from app.message import Message
from app.ready import ReadyResponse, RelayedResponse
from app.relayed import Relayed

if TYPE_CHECKING:
    from app.door import DoorProtocol

CONTINUE_SECONDS: Final = 1.0
_SET_HERE: Final = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive"})


class Exchange(Stream):
    """Sanic's stream interface over one Message. `stage` follows Sanic's: HANDLER, RESPONSE, then IDLE or FAILED."""

    response: BaseHTTPResponse | None = None
    request: Any = None
    stage = Stage.HANDLER
    upgrade_websocket = False
    url = None
    _task: asyncio.Task[Any] | None = None

    def __init__(self, protocol: DoorProtocol, message: Message) -> None:
        self.protocol = self.connection = protocol
        self.message = message
        self.writer = AnswerWriter(message)
        self.request_max_size = protocol.request_max_size

    # --- the course of a request ---

    def make_request(self, context: Context | None = None) -> Any:
        """Sanic's request, of the app's class. `context`: what is known of it already."""
        make: Any = self.protocol.request_class
        self.request = request = make(message=self.message, exchange=self, app=self.protocol.app, context=context)
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
            self.stage = Stage.FAILED
            if not self.connection.is_gone:
                self.connection.reset()
            raise
        except Exception as error:  # noqa: BLE001 - the worker lives on whatever a handler does
            await app.handle_exception(request, error, False)
        finally:
            if self.stage is Stage.RESPONSE:
                self.fail()
            request.context.log(self.writer.status, self.writer.body_bytes)
            self._let_go(request)
        return self.writer.keep_alive and self.stage is Stage.IDLE

    def _let_go(self, request: Any) -> None:
        """Request, response and exchange know each other; without this only the garbage collector would free them."""
        self.request = self._task = request.stream = None
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
        if self._task is not None:
            self._task.cancel()

    def fail(self) -> None:
        """The answer cannot be finished: the connection ends so that nobody takes it for whole."""
        self.stage = Stage.FAILED
        self.writer.keep_alive = False
        if self.writer.ends_with_connection:
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
        if self.stage is Stage.HANDLER and self.message.version != "1.0":
            self.connection.write(interim(status, fields))

    # --- the answer ---

    def switch_protocols(self, head: Relayed) -> None:
        """Sends the 101, after which nothing on this connection is HTTP."""
        writer, stamp = self.writer, self.request.context.stamp
        writer.status, writer.keep_alive, self.stage = head.status, False, Stage.IDLE
        self.connection.write(b"".join((status_line(head.status, head.reason), *head.lines, stamp, b"\r\n")))

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
        protocol = self.connection
        if not protocol.can_write:
            await protocol._can_write.wait()
        response = self.response
        if response is None or protocol.transport is None:
            return
        head = b""
        if self.stage is Stage.HANDLER:
            if not data and response.body and not isinstance(response, RelayedResponse):
                data, end_stream = response.body, True
            head = self._head(response, len(data), end_stream)
            self.stage = Stage.RESPONSE
        out = head + self.writer.framed(data, is_last=end_stream)
        if out:
            protocol.write(out)
        if end_stream and self.stage is Stage.RESPONSE:
            self.stage = Stage.IDLE

    def _head(self, response: BaseHTTPResponse, size: int, end_stream: bool) -> bytes:
        stamp, is_draining = self.request.context.stamp, self.connection.is_draining
        if isinstance(response, RelayedResponse):
            return self.writer.relayed_head(response.head, stamp, is_draining=is_draining)
        if isinstance(response, ReadyResponse):
            lines, announced = response.lines, None
        else:
            fields = [field for field in response.processed_headers if field[0].lower() not in _SET_HERE]
            lines, announced = [b"%b: %b\r\n" % field for field in fields], response.headers.get("content-length")
        length = size if end_stream else None if announced is None else int(announced)
        return self.writer.own_head(
            response.status, [*lines, date_line(int(time.time()))], length, stamp, is_draining=is_draining
        )
