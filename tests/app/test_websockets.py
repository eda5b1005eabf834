"""WebSockets through the gateway, with an implementation that is not ours at both ends."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.app.test_relay import MEGABYTE, _stalls, resident_bytes
from tests.gateway import Gateway, until
from tests.websocket import WebSocketBackend, backend_process, closed, opened


@pytest.fixture(scope="module")
def backend() -> Iterator[WebSocketBackend]:
    with WebSocketBackend(
        max_size=None, compression="deflate", subprotocols=["chat.v2", "chat.v1"], select_subprotocol=_first_of_ours
    ) as running:
        yield running


def _first_of_ours(connection: object, offered: object) -> object:
    """The backend's choice, none where nothing was offered."""
    return next((name for name in ("chat.v2", "chat.v1") if name in list(offered)), None)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def gateway(backend: WebSocketBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Its time-out for tunnels is short enough to be waited for, and longer than any pause in these tests."""
    environment = {"BACKEND_URLS": f"api={backend.url}", "TUNNEL_IDLE_TIMEOUT": "2"}
    with Gateway(tmp_path_factory.mktemp("gateway"), environment) as running:
        yield running


@pytest.fixture(autouse=True)
def _forgotten(backend: WebSocketBackend) -> Iterator[None]:
    """What a test did at the backend is over before the next."""
    yield
    backend.forget()


@pytest.mark.parametrize("compression", ["deflate", None])
def test_messages_of_every_size_come_back(compression: str | None, gateway: Gateway) -> None:
    """Text and binary, empty and a mebibyte, compressed (permessage-deflate) or not: each exactly as it was sent."""
    noise = random.Random(7).randbytes(MEGABYTE)
    with opened(gateway, compression=compression, max_size=None) as client:
        assert bool(client.protocol.extensions) is (compression is not None)
        for message in ("", "héllo", b"", b"\0\xff", "x" * 65_536, "y" * MEGABYTE, noise):
            client.send(message)
            assert client.recv(timeout=20) == message


def test_a_message_in_fragments_comes_back(gateway: Gateway) -> None:
    """Frames of one message pass one by one."""
    with opened(gateway) as client:
        client.send(["a", "b" * 70_000, "c"])
        assert client.recv(timeout=20) == "a" + "b" * 70_000 + "c"


@pytest.mark.parametrize("offered", [["chat.v1"], ["chat.v1", "chat.v2"], None])
def test_the_subprotocol_is_the_backends_choice(offered: list[str] | None, gateway: Gateway) -> None:
    """What the client offers reaches the backend, what it chooses reaches the client."""
    with opened(gateway, subprotocols=offered) as client:
        assert client.subprotocol == (None if offered is None else offered[-1])


def test_the_answer_carries_limits_and_the_requests_id(gateway: Gateway) -> None:
    """The 101 as any answer; the same id in the log when it is over, with status 101."""
    with opened(gateway) as client:
        assert client.response is not None
        fields = client.response.headers
        assert fields["X-RateLimit-Limit-Minute"] == "1000"
    line = gateway.access(fields["X-Request-ID"])
    assert (line["status"], line["path"], line["organization_id"]) == (101, "/api/socket", "org_1")


def test_a_refusal_is_an_http_answer(gateway: Gateway, backend: WebSocketBackend) -> None:
    """Without a valid key there is a 403 and no WebSocket; the backend hears nothing of it."""
    with pytest.raises(InvalidStatus) as refused, opened(gateway, key="sk_test_nobody"):
        pass
    assert refused.value.response.status_code == 403
    assert b"invalid API key" in refused.value.response.body
    assert backend.connections.empty()


def test_pings_pass_both_ways(gateway: Gateway, backend: WebSocketBackend) -> None:
    """Each side's ping is answered by the other side itself."""
    with opened(gateway) as client:
        assert client.ping("from the client").wait(10)
        assert backend.connections.get(timeout=10).ping("from the backend").wait(10)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "gone"), (3000, "x" * 123), (4999, "é")])
def test_closes_pass_both_ways(code: int, reason: str, gateway: Gateway, backend: WebSocketBackend) -> None:
    """Code and reason are those of the side that closed, whichever that was."""
    with opened(gateway) as client:
        client.close(code, reason)
    assert backend.closes.get(timeout=10) == (code, reason)
    with opened(gateway) as client:
        client.send(f"close {code} {reason}")
        assert closed(client) == (code, reason)
    assert backend.closes.get(timeout=10) == (code, reason)


def test_pings_keep_a_quiet_socket(gateway: Gateway) -> None:
    """A WebSocket without messages lives for longer than TUNNEL_IDLE_TIMEOUT, as long as someone pings."""
    with opened(gateway, ping_interval=0.5) as client:
        with pytest.raises(TimeoutError):
            client.recv(timeout=3.5)
        client.send("still there")
        assert client.recv(timeout=10) == "still there"


def test_a_silent_socket_is_closed(gateway: Gateway, backend: WebSocketBackend) -> None:
    """After TUNNEL_IDLE_TIMEOUT both sides are told 1001, and why."""
    began = time.monotonic()
    with opened(gateway, ping_interval=None) as client:
        assert closed(client) == (1001, "idle timeout")
        assert 1.9 < time.monotonic() - began < 10
    assert backend.closes.get(timeout=10) == (1001, "idle timeout")


def test_a_slow_reader_holds_its_backend_back(gateway: Gateway, backend: WebSocketBackend) -> None:
    """A hundred mebibytes asked for and not read: the backend stalls, memory stays flat, and nothing is lost."""
    before, count = resident_bytes(gateway), 100
    backend.poured[0] = 0
    with opened(gateway, compression=None, max_size=None, max_queue=1) as client:
        client.send(f"pour {count} {MEGABYTE}")
        until(lambda: backend.poured[0] > 0, "the backend to begin")
        assert _stalls(backend.poured) < 90  # what kernels buffer, and no more
        assert resident_bytes(gateway) - before < 8 * MEGABYTE
        assert all(client.recv(timeout=20) == "x" * MEGABYTE for _ in range(count))
    assert resident_bytes(gateway) - before < 8 * MEGABYTE


def test_many_at_once(gateway: Gateway) -> None:
    """Forty sockets, each with its own messages: none gets another's."""

    def talk(number: int) -> bool:
        with opened(gateway) as client:
            for turn in range(20):
                client.send(f"{number}.{turn}")
                if client.recv(timeout=20) != f"{number}.{turn}":
                    return False
        return True

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(talk, range(40)))


@pytest.fixture
def killable() -> Iterator[tuple[subprocess.Popen[str], int]]:
    with backend_process() as running:
        yield running


def test_a_backend_that_is_killed(killable: tuple[subprocess.Popen[str], int], tmp_path: Path) -> None:
    """kill -9 of the backend: the client's connection ends at once without a Close (1006), others are refused with 502,
    and nothing of it is an error of the gateway's."""
    process, port = killable
    with Gateway(tmp_path / "g", {"BACKEND_URLS": f"api=http://127.0.0.1:{port}"}) as gateway:
        with opened(gateway) as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"
            began = time.monotonic()
            process.send_signal(signal.SIGKILL)
            assert closed(client) == (1006, "")
            assert time.monotonic() - began < 5
        with pytest.raises(InvalidStatus), opened(gateway):
            pass
        until(lambda: gateway.log(status=101), "the line of the tunnel")
        assert gateway.log(level="error", status=None) == []
        assert "Traceback" not in gateway.output


def test_a_client_that_vanishes(gateway: Gateway, backend: WebSocketBackend) -> None:
    """A client whose connection breaks ends the backend's work on it, as a break and not as a close."""
    with opened(gateway) as client:
        client.send("hello")
        client.recv(timeout=10)
        client.socket.shutdown(socket.SHUT_RDWR)
    assert backend.closes.get(timeout=10)[0] == 1006
