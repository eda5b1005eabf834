"""One bad target of three under load: clients see it within the first second, and never again."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backend import OK, Backend, Connection
from tests.gateway import STATIC_KEY, Client, Gateway, until

CLIENTS = 8
LOAD_SECONDS = 2.5
FIRST_SECONDS = 1.0
PACE_SECONDS = 0.01
"""Between a client's requests: together they stay below what the enterprise plan has in a minute."""
HEAD = f"Host: g\r\nAuthorization: Bearer {STATIC_KEY}\r\n"
GET = f"GET /api/x HTTP/1.1\r\n{HEAD}\r\n".encode()
POST = f"POST /api/x HTTP/1.1\r\n{HEAD}Content-Length: 2\r\n\r\nhi".encode()
Harm = Callable[[Connection], None]


def reset(connection: Connection) -> None:
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.socket.close()


def hang(connection: Connection) -> None:
    while connection.more():
        pass


def die_in_the_middle(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    reset(connection)


def speak_no_http(connection: Connection) -> None:
    connection.send(b"SSH-2.0-nobody\r\n\r\n")
    connection.socket.close()


class Fragile(Backend):
    """Answers OK until `harm` is set; from then on every request gets that, on connections that are kept as well."""

    def __init__(self) -> None:
        super().__init__(self._serve_until_harmed)
        self.harm: Harm | None = None
        self.asked = 0

    def _serve_until_harmed(self, connection: Connection) -> None:
        while connection.read_head() and connection.read_body():
            self.asked += 1
            if self.harm is not None:
                self.harm(connection)
                return
            connection.send(OK)


class Load:
    """Clients that ask one request after the other, three GETs and a POST in turn; what each got, and when it asked."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CLIENTS)]
        self.results: list[tuple[float, str]] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(20)

    def _ask(self) -> None:
        client: Client | None = None
        number = 0
        while not self._is_over.is_set():
            number += 1
            client = client or self._gateway.client()
            began = time.monotonic()
            try:
                reply = client.send(POST if number % 4 == 0 else GET).reply()
                got = str(reply.status) if reply.is_whole and reply.body == b"ok" else f"broken {reply.status}"
            except (AssertionError, OSError) as error:
                got = type(error).__name__
            self.results.append((began, got))
            if got != "200":
                client.close()
                client = None
            self._is_over.wait(PACE_SECONDS)
        if client is not None:
            client.close()

    def since(self, moment: float) -> Counter[str]:
        return Counter(got for began, got in self.results if began >= moment)


@pytest.fixture
def targets() -> Iterator[list[Fragile]]:
    with Fragile() as one, Fragile() as two, Fragile() as three:
        yield [one, two, three]


@pytest.fixture
def gateway(targets: list[Fragile], tmp_path: Path) -> Iterator[Gateway]:
    environment = {
        "BACKEND_URLS": "api=" + "|".join(target.url for target in targets),
        "BACKEND_TIMEOUT": "0.5",
        "VALID_API_KEYS": f"{STATIC_KEY}:org_1:enterprise",
    }
    with Gateway(tmp_path / "g", environment) as running:
        yield running


@pytest.mark.parametrize("harm", [None, reset, hang, die_in_the_middle, speak_no_http])
def test_one_bad_target_of_three(harm: Harm | None, gateway: Gateway, targets: list[Fragile]) -> None:
    """Whatever a target does wrong, every request that begins a second later or more is answered by the others."""
    bad = targets[1]
    with Load(gateway) as load:
        until(lambda: all(target.asked > 50 for target in targets), "every target to be asked")
        if harm is None:
            bad.close()
        else:
            bad.harm = harm
        began = time.monotonic()
        time.sleep(LOAD_SECONDS)  # the load's length
    seen = load.since(began + FIRST_SECONDS)
    assert set(seen) == {"200"}, (load.since(began), seen)
    assert seen["200"] > 100
