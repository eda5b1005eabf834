"""What each stage of a request costs in processor time, without any socket: `python -m tests.load.stages`.

The app runs in this process as it does in a worker, between transports that hand bytes over at once; the limiter's part
is a verdict that is there already (its batches need Redis: docs/performance.md measures them with it). The least of
several rounds counts. No test: it measures a machine. GATEWAY_PURE_PYTHON=1 measures the sources.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import Callable
from typing import Any, Final

import click
import uvloop
from rich.console import Console
from rich.table import Table

from app.core.keys.credential import digest
from app.core.limits import announce
from app.core.model import PLANS, Backend, Limits, Organization, Verdict
from app.core.process import compiled
from app.core.process.access import access_line
from app.core.process.request_id import new_request_id
from app.core.process.settings import GatewaySettings
from app.core.relay import headers
from app.core.relay.peer import Peer
from app.door import DoorProtocol
from app.reader import Reader
from app.server import create_app

ROUNDS: Final = 5
CONNECTIONS: Final = 32
KEY: Final = "sk_test_0123456789abcdef0123456789abcdef"
REQUEST: Final = (
    b"GET /api/users HTTP/1.1\r\nHost: gateway.example\r\nUser-Agent: client/1.0\r\nAccept: application/json\r\n"
    b"Authorization: Bearer %b\r\n\r\n" % KEY.encode()
)
ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Tue, 24 Nov 2026 09:23:55 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: 108\r\nConnection: keep-alive\r\n\r\n" + b"x" * 108
)
ORGANIZATION: Final = Organization("org", "enterprise", PLANS["enterprise"])
NOW: Final = 1_800_000_000
VERDICT: Final = Verdict(Limits(10_000, 1_000_000, 5_000), 9, 90, 9_991, 999_910, 0, NOW, NOW + 60, NOW + 3_600, None)


class Wire:
    """A transport without a socket: what is written goes to `take` at once."""

    def __init__(self, take: Callable[[bytes], object]) -> None:
        self._take = take
        self.protocol: Any = None

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: bytes) -> None:  # None, as compiled code insists
        self._take(data)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 40_000) if name == "peername" else default

    def set_write_buffer_limits(self, **_: int) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool:
        return False


class Backends(uvloop.Loop):
    """An event loop whose outgoing connections end in this process, at a backend that always says ANSWER."""

    async def create_connection(self, protocol_factory: Any, *_: Any, **__: Any) -> Any:
        peer = protocol_factory()
        peer.connection_made(Wire(lambda _: self.call_soon(peer.data_received, ANSWER)))
        return None, peer


class Granted:
    """A limiter that has decided already."""

    def decide_at_once(self, _: Organization) -> Verdict:
        return VERDICT


def settings() -> GatewaySettings:
    return GatewaySettings.model_validate(
        {"BACKEND_URLS": "api=http://backend.example", "VALID_API_KEYS": f"{KEY}:org:enterprise"}
    )


async def whole(requests: int) -> dict[str, float]:
    """Microseconds a request, by what answers it."""
    app = create_app(settings(), lambda _: None)
    listener = socket.create_server(("127.0.0.1", 0))  # to Sanic port 0 is no port: it would take 8000
    server: Any = await app.create_server(
        sock=listener, protocol=DoorProtocol, asyncio_server_kwargs={"start_serving": False}
    )
    await server.startup()
    await server.before_start()
    app.ctx.limiter = Granted()
    kinds = {
        "a whole request": REQUEST,
        "one that is refused (401)": REQUEST.replace(b"Authorization", b"X-Authorization"),
        "one of /health/live": REQUEST.replace(b"/api/users", b"/health/live"),
    }
    gc.collect()
    gc.freeze()
    found = {name: min([await _served(app, head, requests) for _ in range(ROUNDS)]) for name, head in kinds.items()}
    await server.close()
    return found


async def _served(app: Any, head: bytes, requests: int) -> float:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = requests
    connections: set[Any] = set()

    def client() -> DoorProtocol:
        door = DoorProtocol(loop=loop, app=app, connections=connections)

        def answered(_: bytes) -> None:
            nonlocal left
            left -= 1
            if left > 0:
                loop.call_soon(wire.protocol.data_received, head)
            elif not left:
                done.set_result(None)

        wire = Wire(answered)
        door.connection_made(wire)
        return door

    began = time.process_time()
    for door in [client() for _ in range(CONNECTIONS)]:
        loop.call_soon(door.data_received, head)
    await done
    spent = time.process_time() - began
    for door in tuple(connections):
        door.connection_lost(None)
    return spent / requests * 1e6


def stages() -> dict[str, Callable[[], object]]:
    """The parts that can be called by themselves, with what they get on the way."""
    first, again = _reader(), _reader()
    other = REQUEST.replace(b"client/1.0", b"client/1.1")
    peer = Peer(Backend("api", "http", "backend.example", 80, ""), 30.0, time.monotonic)
    peer.connection_made(Wire(lambda _: None))  # type: ignore[arg-type]
    sent = [(b"Host", b"gateway.example"), (b"User-Agent", b"client/1.0"), (b"Accept", b"application/json")]
    got = [(b"Server", b"nginx"), (b"Date", b"Tue, 24 Nov 2026 09:23:55 GMT"), (b"Content-Length", b"108")]

    def parse(reader: Reader, *heads: bytes) -> None:
        for head in heads:
            reader.feed(head)
            reader.queue.clear()

    def answered() -> None:
        peer.begin(False, None)
        peer.data_received(ANSWER)
        peer.take()
        peer.end()

    return {
        "head read, fields new to the connection (twice)": lambda: parse(first, REQUEST, other),
        "head read, fields as before": lambda: parse(again, REQUEST),
        "request id": new_request_id,
        "digest of the key": lambda: digest(KEY),
        "fields for the backend": lambda: headers.to_backend(sent),
        "answer's head and body read": answered,
        "fields for the client": lambda: headers.to_client(got),
        "limits announced": lambda: announce.fields(VERDICT),
        "log line": lambda: access_line(
            started_at=NOW + 0.25, method="GET", path="/api/users", status=200, duration_seconds=0.002, body_bytes=108,
            client_ip="192.0.2.1", request_id="7b1c5b5e-0d43-4f0e-9d5b-0d3a0a3f1a11", organization_id="org",
            tier="enterprise", service="api", key_id=None, backend_seconds=0.001,
        ),
    }  # fmt: skip


def _reader() -> Reader:
    return Reader(lambda: None, lambda: None)


def alone(stage: Callable[[], object], calls: int) -> float:
    """Microseconds a call, the least of several rounds."""

    def once() -> float:
        began = time.process_time()
        for _ in range(calls):
            stage()
        return time.process_time() - began

    return min(once() for _ in range(ROUNDS)) / calls * 1e6


@click.command(help=__doc__)
@click.option("--requests", default=20_000, show_default=True, help="A round's.")
def main(requests: int) -> None:
    loop = Backends()
    asyncio.set_event_loop(loop)
    table = Table("stage", "us", title="compiled" if compiled.in_use() else "from the sources")
    for name, cost in loop.run_until_complete(whole(requests)).items():
        table.add_row(name, f"{cost:.1f}")
    table.add_section()
    for name, stage in loop.run_until_complete(_made()).items():
        table.add_row(name, f"{alone(stage, requests):.2f}")
    Console().print(table)


async def _made() -> dict[str, Callable[[], object]]:
    return stages()


if __name__ == "__main__":
    main()
