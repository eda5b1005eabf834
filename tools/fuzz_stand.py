"""A gateway between a client and a backend that are both ours: what goes in, what arrives and what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self, cast

from tools.embedded import free_port
from tools.readers import Request, requests_by_h11

ROOT: Final = Path(__file__).resolve().parent.parent
KEYS: Final = 500
"""Organizations that take turns, so that none runs into its limit."""
START_SECONDS: Final = 30.0
SEGMENT_SECONDS: Final = 0.001
"""Between two writes, so that they arrive as two."""
ENDED_SECONDS: Final = 5.0
KEY: Final = b"sk_test_fuzz@@@"
"""What stands for a key where a stream is made; `ask` puts one in its place, which has the same length."""
Ending = Literal["keep", "close", "reset"]


def key(number: int) -> bytes:
    return b"sk_test_fuzz%03d" % number


@dataclass(frozen=True, slots=True)
class Script:
    """What the backend answers a request with instead of its target. `is_early`: before it has read the body."""

    pieces: tuple[bytes, ...]
    ending: Ending = "close"
    is_early: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """`sent` by the client, `received` by it. `arrived`: each backend connection's bytes of this turn.

    `is_closed`: by the gateway, before the client lost its patience.
    """

    sent: bytes
    received: bytes
    is_closed: bool
    arrived: tuple[bytes, ...]
    is_cut: bool
    """Whether what was not whole to the backend has ended."""
    requests: tuple[Request, ...]
    """Those that were whole to the backend, in the order in which they became so."""


class Origin(asyncio.Protocol):
    """One backend connection: keeps its bytes, answers each whole request with its target, or as the script says."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self.received = b""
        self._answered = 0
        self._is_scripted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._stand.origins.append(self)

    def data_received(self, data: bytes) -> None:
        self.received += data
        script, requests = self._stand.script, requests_by_h11(self.received).requests
        if script is not None:
            if (requests or (script.is_early and b"\r\n\r\n" in self.received)) and not self._is_scripted:
                self._is_scripted = True
                self._stand.play(self, script)
            return
        for request in requests[self._answered :]:
            self._answered += 1
            self._stand.requests.append(request)
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nX-Origin: 1\r\nContent-Length: %d\r\n\r\n%b"
                % (len(request.target), request.target)
            )

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._stand.lost.add(self)

    def take(self) -> bytes:
        """What arrived since the last turn."""
        data, self.received, self._answered, self._is_scripted = self.received, b"", 0, False
        return data


@dataclass
class Stand:
    """An async context manager. One turn at a time: `ask`."""

    environment: dict[str, str] = field(default_factory=dict)
    script: Script | None = None
    origins: list[Origin] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    lost: set[Origin] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._players: set[asyncio.Task[None]] = set()
        self._server = await asyncio.get_running_loop().create_server(lambda: Origin(self), "127.0.0.1", 0)
        origin_port = self._server.sockets[0].getsockname()[1]
        self.port = free_port()
        self._keys = itertools.cycle([key(number) for number in range(KEYS)])
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        self.log = Path(self._folder.name, "log")
        environment = {
            "PYTHONPATH": str(ROOT),
            "GATEWAY_PORT": str(self.port),
            "WEB_CONCURRENCY": "1",
            "BACKEND_URLS": f"api=http://127.0.0.1:{origin_port}",
            "BACKEND_TIMEOUT": "5",
            "VALID_API_KEYS": ",".join(f"{key(number).decode()}:org_{number}:enterprise" for number in range(KEYS)),
        }
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - before there is anything else to do
                [sys.executable, "-m", "app"],
                env=environment | self.environment,
                cwd=self._folder.name,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        await self._until_it_answers()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.terminate()
        for origin in self.origins:
            origin.transport.abort()
        await asyncio.to_thread(self._process.wait, START_SECONDS)
        self._server.close()
        await self._server.wait_closed()
        self._folder.cleanup()

    async def _until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"the gateway did not start: {self.log.read_text()}")
            await asyncio.sleep(0.05)

    async def ask(self, pieces: Sequence[bytes], *, patience_seconds: float, script: Script | None = None) -> Outcome:
        """Sends `pieces` on a connection of its own and reads until the gateway closes it, or is silent for so long."""
        for origin in self.origins:
            origin.take()
        self.requests.clear()
        self.script = script
        key = next(self._keys)
        sent = b"".join(pieces).replace(KEY, key)
        ends = list(itertools.accumulate(map(len, pieces)))
        pieces = [sent[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        received, is_closed = await self._talk(pieces, patience_seconds)
        is_cut = script is not None or await self._is_cut()
        self.script = None
        arrived = tuple(data for origin in self.origins if (data := origin.take()))
        self.origins = [origin for origin in self.origins if origin not in self.lost]
        self.lost.clear()
        return Outcome(sent, received, is_closed, arrived, is_cut, tuple(self.requests))

    async def _talk(self, pieces: Sequence[bytes], patience_seconds: float) -> tuple[bytes, bool]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        received, is_closed = b"", False
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(SEGMENT_SECONDS if len(pieces) > 1 else 0)
        try:
            async with asyncio.timeout(patience_seconds) as patience:
                while data := await reader.read(65_536):
                    received += data
                    patience.reschedule(asyncio.get_running_loop().time() + patience_seconds)
                is_closed = True
        except ConnectionError:
            is_closed = True
        except TimeoutError:
            pass
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        return received, is_closed

    async def _is_cut(self) -> bool:
        """A request that stays unfinished is over when the gateway has closed its connection to the backend."""
        deadline = time.monotonic() + ENDED_SECONDS
        while any(requests_by_h11(each.received).end != "clean" for each in self.origins if each not in self.lost):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.002)
        return True

    def play(self, origin: Origin, script: Script) -> None:
        player = asyncio.get_running_loop().create_task(_play(origin.transport, script))
        self._players.add(player)
        player.add_done_callback(self._players.discard)


async def _play(transport: asyncio.Transport, script: Script) -> None:
    for piece in script.pieces:
        if transport.is_closing():
            return
        transport.write(piece)
        await asyncio.sleep(SEGMENT_SECONDS if len(script.pieces) > 1 else 0)
    if script.ending == "reset":
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        transport.abort()
    elif script.ending == "close":
        transport.close()
