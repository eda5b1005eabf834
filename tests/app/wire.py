"""A DoorProtocol without a network: bytes in by hand, bytes out in a list, time by decree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

from sanic import Sanic

from app.body import ClientGone
from app.core.errors import GatewayError
from app.door import DoorProtocol
from app.message import Message
from app.occupancy import Occupancy
from app.request import GatewayRequest

TURNS = 20
"""More turns of the loop than any chain of callbacks here takes."""


class Clock:
    """The running loop with a time of its own, which stands still."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._loop = asyncio.get_running_loop()

    def time(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class Wire(asyncio.Transport):
    """A transport that keeps what is written. `unread_bytes` is what the client is said not to have taken yet."""

    def __init__(self, protocol: DoorProtocol) -> None:
        super().__init__({"peername": ("192.0.2.1", 50000), "sockname": ("192.0.2.2", 80)})
        self._protocol = protocol
        self.written = b""
        self.unread_bytes = 0
        self.has_sent_eof = self.is_paused = self.was_aborted = self._closing = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The test says by `unread_bytes` how full the buffer is."""

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def write_eof(self) -> None:
        self.has_sent_eof = True

    def pause_reading(self) -> None:
        assert not self.is_paused
        self.is_paused = True

    def resume_reading(self) -> None:
        assert self.is_paused
        self.is_paused = False

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.was_aborted = True
        self.close()


class Taken:
    """In an Exchange's place: takes the request in whole and answers nothing. `received` belongs to the connection."""

    has_begun = False

    def __init__(self, protocol: Door, message: Message) -> None:
        self.message = message
        self._received = protocol.received

    def hang_up(self) -> None:
        """Nobody's work depends on the client here."""

    async def run(self) -> bool:
        message, body = self.message, b""
        if message.error is not None:
            self._received.append(message.error)
            return False
        try:
            while piece := await message.body.read():
                body += piece
        except (GatewayError, ClientGone) as error:
            self._received.append(error)
            return False
        self._received.append((message, body))
        return message.keep_alive


class Door(DoorProtocol):
    """The door itself, on a Wire. What it hands over is in `received`: (message, body), or the error."""

    HTTP_CLASS = Taken
    __slots__ = ("clock", "received", "wire")

    def __init__(self, app: Sanic[Any, Any]) -> None:
        super().__init__(loop=asyncio.get_running_loop(), app=app)
        self.loop = self.clock = Clock()
        self.received: list[Any] = []
        self.wire = Wire(self)
        self.connection_made(self.wire)

    def feed(self, data: bytes) -> Self:
        """As a socket would: nothing while reading is paused or after the close."""
        assert not self.wire.is_paused
        if not self.wire.is_closing():
            self.data_received(data)
        return self

    async def settle(self) -> Self:
        """Lets everything run that can."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return self

    async def after(self, seconds: float) -> Self:
        """The time passes, then the sweep comes by."""
        self.clock.now += seconds
        self.check_timeouts(self.clock.now)
        return await self.settle()

    async def until_closed(self) -> Self:
        self.wire.close()
        return await self.settle()


class SanicDoor(Door):
    """With the real Exchange: Sanic answers."""

    HTTP_CLASS: Any = DoorProtocol.HTTP_CLASS
    __slots__ = ()


def sanic_app(name: str, log: Callable[..., None] | None = None) -> Sanic[Any, Any]:
    """An app with our request class and no routes, ready for a door once it has some."""
    Sanic.test_mode = True
    app: Sanic[Any, Any] = Sanic(name, configure_logging=False, request_class=GatewayRequest)
    app.config.AUTO_EXTEND = False
    app.ctx.access_line = log or (lambda **fields: None)
    app.ctx.write = lambda line: None
    app.ctx.occupancy = Occupancy(1_000_000, 1_000_000, lambda ip: True)
    return app
