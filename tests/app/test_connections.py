"""How many connections a worker holds, and who has to go when there are more."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sanic import Sanic

from app.occupancy import LEAVING_MAX, LOOK_SECONDS, PATIENCE_SECONDS, Entry, Occupancy
from tests.app.test_relay import AUTH, GET, resident_bytes
from tests.app.wire import Door, sanic_app
from tests.backend import Backend, Connection
from tests.gateway import ROOT, Client, Gateway, until

IDLE_BYTES_MAX = 20_000
"""Of a worker's memory for one idle connection; measured 8,100."""
CONNECTIONS_MAX = 8


@dataclass(eq=False)
class Guest:
    """A connection without a network. `waits_since` as the test says; `has_gone` when it was asked to make room."""

    occupancy: Occupancy
    waits_since: float = float("inf")
    has_gone: bool = False

    def lose_patience(self, now: float) -> None:
        self.has_gone = True

    def enter(self, ip: str, now: float = 0.0) -> Entry:
        return self.occupancy.enter(self, ip, now)


@pytest.fixture
def occupancy() -> Occupancy:
    """Four connections, two an address, but for the router at 10.0.0.1."""
    return Occupancy(4, 2, lambda ip: ip == "10.0.0.1")


def test_an_address_has_its_share(occupancy: Occupancy) -> None:
    """One address cannot take every place: it is refused while others are served."""
    assert [Guest(occupancy).enter("a") for _ in range(3)] == ["serve", "serve", "refuse"]
    assert [Guest(occupancy).enter("b") for _ in range(3)] == ["serve", "serve", "refuse"]
    assert Guest(occupancy).enter("c") == "refuse"


def test_a_router_has_no_share(occupancy: Occupancy) -> None:
    """Many clients come from a trusted proxy's address: only the worker's own bound holds there."""
    assert [Guest(occupancy).enter("10.0.0.1") for _ in range(5)] == ["serve"] * 4 + ["refuse"]


def test_a_place_that_was_left_is_free_again(occupancy: Occupancy) -> None:
    """Who leaves makes room, in the worker and for its address; leaving twice frees one place."""
    first = Guest(occupancy)
    assert first.enter("a") == "serve"
    assert Guest(occupancy).enter("a") == "serve"
    occupancy.leave(first)
    occupancy.leave(first)
    assert [Guest(occupancy).enter("a") for _ in range(2)] == ["serve", "refuse"]


def test_the_longest_idle_makes_room(occupancy: Occupancy) -> None:
    """A newcomer takes the place of the connection that has waited longest, of its own address where that is full."""
    idle = [Guest(occupancy, waits_since=float(since)) for since in (3, 1, 2, 4)]
    for guest, ip in zip(idle, "aabb", strict=True):
        guest.enter(ip)
    assert Guest(occupancy).enter("c", now=10) == "serve"
    assert [guest.has_gone for guest in idle] == [False, True, False, False]
    occupancy.leave(idle[0])
    assert Guest(occupancy).enter("b", now=10) == "serve"
    assert [guest.has_gone for guest in idle] == [False, True, True, False]


def test_who_has_just_come_is_not_sent_away(occupancy: Occupancy) -> None:
    """A connection has PATIENCE_SECONDS to say what it wants; a look that found nobody idle is not repeated at once."""
    for ip in "aabb":
        Guest(occupancy, waits_since=10).enter(ip, now=10)
    assert Guest(occupancy).enter("c", now=10 + PATIENCE_SECONDS - LOOK_SECONDS / 2) == "refuse"
    assert Guest(occupancy).enter("c", now=10 + PATIENCE_SECONDS) == "refuse"
    assert Guest(occupancy).enter("c", now=10 + PATIENCE_SECONDS + LOOK_SECONDS) == "serve"


def test_refusals_are_bounded_too(occupancy: Occupancy) -> None:
    """Only so many are told why at once; the rest of a flood ends without a word, until some have gone."""
    guests = [Guest(occupancy) for _ in range(LEAVING_MAX + 10)]
    entries = [guest.enter("a") for guest in guests]
    assert entries == ["serve"] * 2 + ["refuse"] * LEAVING_MAX + ["drop"] * 8
    occupancy.leave(guests[2])
    assert Guest(occupancy).enter("a") == "refuse"


async def test_who_still_reads_its_answer_is_not_idle() -> None:
    """A client that is slow to take its last answer keeps its place: nothing but a reset would free it at once."""
    app = sanic_app("connections")
    app.ctx.occupancy = occupancy = Occupancy(1, 1, lambda ip: True)
    try:
        door = await Door(app).feed(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").settle()
        assert (door.exchange, len(door.received)) == (None, 1)
        door.pause_writing()
        later = door.clock.now + PATIENCE_SECONDS
        assert Guest(occupancy).enter("b", now=later) == "refuse"
        door.resume_writing()
        assert Guest(occupancy).enter("b", now=later + PATIENCE_SECONDS + LOOK_SECONDS) == "serve"
        await door.until_closed()
    finally:
        Sanic._app_registry.pop("connections", None)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "idle"]), st.sampled_from("abcr"), st.integers(0, 9))))
def test_no_bound_is_ever_passed(steps: list[tuple[str, str, int]]) -> None:
    """Whoever comes, goes and idles in whatever order, those served are never more than allowed."""
    occupancy = Occupancy(5, 2, lambda ip: ip == "r")
    served: list[tuple[Guest, str]] = []
    for now, (step, ip, which) in enumerate(steps):
        guest = Guest(occupancy)
        if step == "enter" and guest.enter(ip, float(now)) == "serve":
            served.append((guest, ip))
        elif step == "leave" and served:
            occupancy.leave(served.pop(which % len(served))[0])
        elif step == "idle" and served:
            served[which % len(served)][0].waits_since = float(now)
        served = [each for each in served if not each[0].has_gone]
        assert len(occupancy) == len(served) <= 5
        assert all(sum(each == ip for _, each in served) <= 2 for ip in "abc")


@pytest.mark.parametrize(("files", "connections"), [(4_096, 1_920), (100_000, 10_000), (100, 1)])
def test_open_files_bound_connections_too(files: int, connections: int) -> None:
    """The soft limit of open files is raised as far as needed and allowed; a worker plans with what it then has."""
    script = (
        f"import resource; hard = min({files}, resource.getrlimit(resource.RLIMIT_NOFILE)[1])\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))\n"
        "from app import descriptors; descriptors.raise_limit()\n"
        "print(min(10_000, descriptors.connections_possible()), (hard - 256) // 2)"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    possible, allowed = map(int, run.stdout.split())
    assert possible == min(connections, max(1, allowed))


# --- a real gateway ---


@pytest.fixture(scope="module")
def gateway(shared_backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A worker of few connections, half of them for one address (as everybody here has)."""
    environment = {
        "BACKEND_URLS": f"api={shared_backend.url}",
        "CONNECTIONS_MAX": str(2 * CONNECTIONS_MAX),
        "CONNECTIONS_PER_ADDRESS_MAX": str(CONNECTIONS_MAX),
    }
    with Gateway(tmp_path_factory.mktemp("gateway"), environment) as running:
        yield running


@pytest.fixture
def busy(gateway: Gateway, backend: Backend) -> Iterator[tuple[list[Client], Callable[[], None]]]:
    """As many connections as one address may have, each with a request that the backend answers when it is told to."""
    go = threading.Event()

    def script(connection: Connection) -> None:
        while connection.read():
            go.wait(20)
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    backend.script = script
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gateway.client()) for _ in range(CONNECTIONS_MAX)]
        for client in clients:
            client.send(GET)
        until(lambda: len(backend.requests) == CONNECTIONS_MAX, "the requests to arrive")
        yield clients, go.set
        go.set()
    until(lambda: gateway.get("/health/live", key=None).status == 200, "the connections to be gone")


def test_one_connection_too_many_is_refused_readably(
    gateway: Gateway, busy: tuple[list[Client], Callable[[], None]]
) -> None:
    """With every place taken by a request, a newcomer gets 503 in the envelope and a close; others their answers."""
    clients, go = busy
    with gateway.client() as client:
        reply = client.send(GET).reply()
        assert (reply.status, reply.json()["error"]) == (503, {"code": 503, "message": "too many connections"})
        assert (reply["Retry-After"], reply["Connection"]) == ("1", "close")
        assert client.rest() == b""
    assert gateway.access(reply["X-Request-ID"])["status"] == 503
    go()
    assert [client.reply().status for client in clients] == [200] * CONNECTIONS_MAX
    assert "too many connections: newcomers are refused while 8 are served" in gateway.output


def test_idle_connections_make_room(gateway: Gateway, busy: tuple[list[Client], Callable[[], None]]) -> None:
    """Connections that are kept for later end when newcomers need their places, the longest idle first."""
    clients, go = busy
    go()
    for client in clients:
        assert client.reply().status == 200
    began = time.monotonic()
    until(lambda: gateway.ask(GET).status == 200, "a place")
    assert time.monotonic() - began < PATIENCE_SECONDS + 5
    sockets = [client.socket for client in clients]
    ended = until(lambda: select.select(sockets, [], [], 0)[0], "the connection that made room to end")
    assert [sock.recv(1) for sock in ended] == [b""]


def test_thousands_of_idle_connections_disturb_nobody(backend: Backend, tmp_path: Path) -> None:
    """Beside thousands of connections that say nothing, or half a request, others are answered; memory is bounded."""
    count = min(2_500, _allow_descriptors(6_000) // 2)
    with Gateway(tmp_path / "g", {"BACKEND_URLS": f"api={backend.url}"}) as gateway, contextlib.ExitStack() as stack:
        before = resident_bytes(gateway)
        for number in range(count):
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), 20))
            if number % 2:
                idle.sendall(b"GET /x HTTP/1.1\r\n" + AUTH[:20])
        slowest = 0.0
        for _ in range(50):
            began = time.monotonic()
            assert gateway.ask(GET).status == 200
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 10  # no time-out of anybody's, on a machine that has other things to do
        assert resident_bytes(gateway) - before < count * IDLE_BYTES_MAX


def _allow_descriptors(wanted: int) -> int:
    """Raises this process's limit of open files as far as it may; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
