"""WebSockets in a gateway of several workers: the end of a worker, and the end of a key."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import Protocol, Side

from tests.app.test_upgrade import ASK, UPGRADE, ended_with_reset, silent, switched, switching
from tests.backend import Backend, Connection
from tests.gateway import Gateway, until
from tests.system.fleet import Fleet, Tenant, made
from tests.websocket import WebSocketBackend, closed, opened
from tools.embedded import RedisServer

Start = Callable[..., Gateway]
RAW = UPGRADE.replace(ASK, b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
AGREED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
GOING_AWAY = b"\x88\x02" + struct.pack(">H", 1001)


@pytest.fixture
def sockets() -> Iterator[WebSocketBackend]:
    with WebSocketBackend() as running:
        yield running


def agreeing(after: Callable[[Connection], None]) -> Callable[[Connection], None]:
    """As `switching`, for raw WebSockets."""

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(AGREED)
        after(connection)

    return script


# --- the end of a worker ---


def test_both_sides_of_every_socket_are_told_at_sigterm(start: Start, sockets: WebSocketBackend) -> None:
    """Twenty over two workers: 1001 at each client and at the backend, one line each, and the exit waits for nobody."""
    gateway = start(BACKEND_URLS=f"api={sockets.url}", WEB_CONCURRENCY="2", SHUTDOWN_TIMEOUT="30")
    with ExitStack() as stack, ThreadPoolExecutor(20) as pool:
        clients = [stack.enter_context(opened(gateway)) for _ in range(20)]
        for client in clients:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"
        until(lambda: len(gateway.worker_pids) == 2, "both workers")
        began = time.monotonic()
        gateway.terminate()
        assert list(pool.map(closed, clients)) == [(1001, "")] * 20
        assert [sockets.closes.get(timeout=10) for _ in clients] == [(1001, "")] * 20
    assert gateway.process.wait(10) == 0
    assert time.monotonic() - began < 8
    assert len(gateway.log(path="/api/socket", status=101)) == 20
    assert gateway.log(level="error") == []


def test_nobody_is_told_before_the_delay_is_over(start: Start, sockets: WebSocketBackend) -> None:
    """While routers still send clients here, sockets go on and new ones open; then all get 1001."""
    gateway = start(BACKEND_URLS=f"api={sockets.url}", SHUTDOWN_DELAY="2")
    with opened(gateway) as early:
        gateway.terminate()
        until(lambda: gateway.get("/health/ready", key=None).status == 503, "the drain")
        with opened(gateway) as late:
            for client in (early, late):
                client.send("still")
                assert client.recv(timeout=10) == "still"
            assert [closed(each) for each in (early, late)] == [(1001, "")] * 2
    assert gateway.process.wait(10) == 0


def test_what_was_sent_before_the_close_arrives(start: Start, sockets: WebSocketBackend) -> None:
    """A message that is on its way at SIGTERM is finished: the Close comes behind its last frame, never inside."""
    gateway = start(BACKEND_URLS=f"api={sockets.url}")
    with opened(gateway, compression=None, max_size=None) as client:
        client.send(f"pour 20 {1 << 20}")
        assert len(client.recv(timeout=20)) == 1 << 20
        gateway.terminate()
        assert closed(client) == (1001, "")
    assert gateway.process.wait(10) == 0


def test_a_close_waits_for_the_end_of_a_frame(start: Start, backend: Backend) -> None:
    """In the middle of a frame towards the client and of one towards the backend: each is finished, then comes 1001."""
    go, heard = threading.Event(), []
    frame = Frame(Opcode.BINARY, b"x" * 300).serialize(mask=False)

    def script(connection: Connection) -> None:
        connection.send(frame[:100])
        while len(connection.buffer) < 50 and connection.more():
            pass
        go.wait(10)
        connection.send(frame[100:] + frame)
        silent(connection)
        heard.append(connection.buffer)

    backend.script = agreeing(script)
    gateway = start()
    sent = Frame(Opcode.BINARY, b"y" * 300).serialize(mask=True)
    with gateway.client() as client:
        switched(client.send(RAW + sent[:50]))
        assert client._exactly(100) == (frame[:100], True)
        gateway.terminate()
        until(lambda: is_refused(gateway), "the drain to begin")
        go.set()
        client.send(sent[50:] + sent)
        assert client._exactly(len(frame) - 100 + 4) == (frame[100:] + GOING_AWAY, True)
        client.send(Frame(Opcode.CLOSE, b"\x03\xe9").serialize(mask=True))
        assert client.rest() == b""
    until(lambda: heard, "the backend to be told")
    assert heard[0][: len(sent)] == sent
    assert close_of_a_client(heard[0][len(sent) :]) == Close(1001, "")
    assert gateway.process.wait(10) == 0


def is_refused(gateway: Gateway) -> bool:
    try:
        socket.create_connection(("127.0.0.1", gateway.port), timeout=0.2).close()
    except ConnectionRefusedError:
        return True
    except TimeoutError:  # no handshakes any more, and not closed yet: the kernel would repeat it after a second
        return False
    return False


def close_of_a_client(data: bytes) -> Close | None:
    """What a server makes of `data`: a Close, masked, with nothing behind it."""
    server = Protocol(Side.SERVER)
    server.receive_data(data)
    assert len(data) == 8
    return server.close_rcvd


def test_sides_that_do_not_answer_are_not_waited_for(start: Start, backend: Backend) -> None:
    """A client and a backend that stay silent after our Close: two seconds, not SHUTDOWN_TIMEOUT."""
    backend.script = agreeing(silent)
    gateway = start(SHUTDOWN_TIMEOUT="30")
    with gateway.client() as client:
        switched(client.send(RAW))
        began = time.monotonic()
        gateway.terminate()
        assert client._exactly(4) == (GOING_AWAY, True)
        assert client.is_closed()
        assert gateway.process.wait(15) == 0
        assert 2 <= time.monotonic() - began < 10


def test_who_has_said_close_is_not_told_twice(start: Start, backend: Backend) -> None:
    """SIGTERM while a client waits for the answer to its own Close: the backend gets no second one."""
    heard: list[bytes] = []
    closing = Frame(Opcode.CLOSE, b"\x0f\xa0").serialize(mask=True)

    def script(connection: Connection) -> None:
        silent(connection)
        heard.append(connection.buffer)

    backend.script = agreeing(script)
    gateway = start()
    with gateway.client() as client:
        switched(client.send(RAW + closing))
        assert gateway.get("/health/live", key=None).status == 200  # the frame has been passed on
        gateway.terminate()
        assert client.rest() == GOING_AWAY
    assert gateway.process.wait(15) == 0
    assert heard == [closing]


def test_a_socket_that_opens_in_the_drain_is_told_at_once(start: Start, backend: Backend) -> None:
    """A request that was under way at SIGTERM may still be answered 101: its WebSocket opens and is closed."""
    reached, go = threading.Event(), threading.Event()

    def script(connection: Connection) -> None:
        connection.read()
        reached.set()
        go.wait(10)
        connection.send(AGREED)
        connection.more()

    backend.script = script
    gateway = start(SHUTDOWN_TIMEOUT="30")
    with gateway.client() as client:
        client.send(RAW)
        reached.wait(10)
        gateway.terminate()
        until(lambda: is_refused(gateway), "the drain to begin")
        go.set()
        switched(client)
        assert client._exactly(4) == (GOING_AWAY, True)
    assert gateway.process.wait(15) == 0


def test_another_protocol_has_the_time_of_a_request(start: Start, backend: Backend) -> None:
    """Nothing can be said to it: it works on after SIGTERM and is cut, visibly and logged, at SHUTDOWN_TIMEOUT."""

    def echo(connection: Connection) -> None:
        while connection.more():
            connection.send(connection.buffer)
            connection.buffer = b""

    backend.script = switching(echo)
    gateway = start(SHUTDOWN_TIMEOUT="4")
    with gateway.client() as client:
        switched(client.send(UPGRADE))
        began = time.monotonic()
        gateway.terminate()
        until(lambda: is_refused(gateway), "the drain to begin")
        assert client.send(b"still there")._exactly(11) == (b"still there", True)
        assert ended_with_reset(client.socket)
        assert gateway.process.wait(10) == 0
        assert 4 <= time.monotonic() - began < 10
    assert [line["bytes"] for line in gateway.log(status=101)] == [11]


# --- the end of a key ---


@pytest.fixture
def fleet(tmp_path: Path, database_url: str, own_redis: RedisServer) -> Iterator[Fleet]:
    with Fleet(tmp_path, database_url, own_redis) as fleet:
        yield fleet


def revoke(fleet: Fleet, tenant: Tenant) -> None:
    made(fleet.admin.post(f"/v1/keys/{tenant.key['id']}/revoke", json={"reason": "leaked"}))


def deactivate(fleet: Fleet, tenant: Tenant) -> None:
    made(fleet.admin.patch(f"/v1/organizations/{tenant.id}", json={"active": False}))


def expire(fleet: Fleet, tenant: Tenant) -> None:
    """The old key ends a second from now; nobody has to be told."""
    made(fleet.admin.post(f"/v1/keys/{tenant.key['id']}/rotate", json={"overlap_seconds": 1}))


ENDS: dict[str, tuple[Callable[[Fleet, Tenant], None], str, float]] = {
    "revoked": (revoke, "API key has been revoked", 1.0),
    "inactive": (deactivate, "organization is inactive", 1.0),
    "expired": (expire, "API key has expired", 2.0),
}
MARGIN_SECONDS = 1.0
"""For a machine that runs two suites."""


@pytest.fixture
def gateway(fleet: Fleet, sockets: WebSocketBackend, tmp_path: Path) -> Iterator[Gateway]:
    """Two workers more in the fleet, in front of the WebSocket backend."""
    environment = {"DATABASE_URL": fleet.database_url, "REDIS_URL": fleet.redis.url, "WEB_CONCURRENCY": "2"}
    with Gateway(tmp_path / "sockets", {**environment, "BACKEND_URLS": f"api={sockets.url}"}) as running:
        yield running


def test_the_sockets_of_a_key_end_with_it(fleet: Fleet, gateway: Gateway, sockets: WebSocketBackend) -> None:
    """Revoked, expired, of an inactive organization: within the second that is promised for requests both sides are
    told 1008 and why. Others' sockets stay open, also when their tier changes or all keys are read again."""
    with ExitStack() as stack, ThreadPoolExecutor(20) as pool:
        other = Tenant(fleet.admin, "basic")
        bystander = stack.enter_context(opened(gateway, key=other.secret))
        made(fleet.admin.patch(f"/v1/organizations/{other.id}", json={"tier": "premium"}))
        made(fleet.admin.post("/v1/cache/invalidate", json={"all": True}))
        for change, reason, seconds in ENDS.values():
            tenant = Tenant(fleet.admin, "premium")
            clients = [stack.enter_context(opened(gateway, key=tenant.secret)) for _ in range(6)]
            began = time.monotonic()
            change(fleet, tenant)
            assert list(pool.map(closed, clients)) == [(1008, reason)] * 6
            assert time.monotonic() - began < seconds + MARGIN_SECONDS
            assert [sockets.closes.get(timeout=10) for _ in clients] == [(1008, reason)] * 6
            until(partial(said_by_all, gateway, reason), "the log to say why")
        bystander.send("still there")
        assert bystander.recv(timeout=10) == "still there"


def said_by_all(gateway: Gateway, reason: str) -> bool:
    return len(gateway.log(message=f"tunnel ended: {reason}")) == 6


def test_a_key_revoked_while_redis_is_away(fleet: Fleet, gateway: Gateway) -> None:
    """Without Redis to tell the workers, the tunnels end within the five seconds that hold for requests then."""
    tenant = Tenant(fleet.admin, "premium")
    with opened(gateway, key=tenant.secret) as client:
        fleet.redis.stop()
        began = time.monotonic()
        revoke(fleet, tenant)
        assert closed(client) == (1008, "API key has been revoked")
        assert time.monotonic() - began < 5 + MARGIN_SECONDS
