"""Kept connections, without a network: which is taken, which are forgotten, and that each is given back once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.core.errors import BackendFailed, BackendTimedOut, BackendUnavailable
from app.core.model import Backend
from app.core.relay.peer import Peer
from app.core.relay.pool import IDLE_CONNECTIONS_MAX, IDLE_SECONDS_MAX, Pool
from tests.core.test_known_lines import Line

BACKEND = Backend("b", "http", "h", 1)
OTHER = Backend("o", "http", "h", 2)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Scene:
    """A pool by a clock of its own, and its connections."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pool = Pool(lambda: self.now)

    def connect(self, backend: Backend = BACKEND) -> Peer:
        """A new connection, with a request under way."""
        peer = Peer(backend, 5.0, lambda: self.now)
        peer.connection_made(Line())
        self.pool.add(peer)
        peer.begin(head_only=False, on_interim=None)
        return peer

    def serve(self, peer: Peer) -> Peer:
        """The request has its whole answer, and the connection is given back."""
        peer.data_received(OK)
        self.pool.release(peer, reusable=True)
        return peer

    def kept(self, count: int) -> list[Peer]:
        """So many idle connections, in the order in which they were given back."""
        return [self.serve(peer) for peer in [self.connect() for _ in range(count)]]


@pytest.fixture
async def scene() -> Scene:
    return Scene()


async def test_the_last_used_is_taken_first(scene: Scene) -> None:
    """Of three idle connections the one that was used last comes first, of another backend none."""
    one, two, three = scene.kept(3)
    assert [scene.pool.take(BACKEND) for _ in range(4)] == [three, two, one, None]
    assert scene.pool.take(OTHER) is None
    assert (scene.pool.busy_count, scene.pool.idle_count) == (3, 0)


async def test_closed_ones_are_forgotten(scene: Scene) -> None:
    """Connections that closed or spoke unasked while idle are passed over, and nothing of them is left."""
    good, closed, spoke = scene.kept(3)
    closed.abort()
    spoke.data_received(OK)
    assert scene.pool.take(BACKEND) is good
    assert (scene.pool.busy_count, scene.pool.idle_count) == (1, 0)


async def test_no_more_than_the_bound_are_kept(scene: Scene) -> None:
    """The connections beyond IDLE_CONNECTIONS_MAX of a backend are ended when they are given back."""
    peers = scene.kept(IDLE_CONNECTIONS_MAX + 2)
    assert scene.pool.idle_count == IDLE_CONNECTIONS_MAX
    assert [peer.is_usable for peer in peers[-3:]] == [True, False, False]
    scene.serve(scene.connect(OTHER))
    assert scene.pool.idle_count == IDLE_CONNECTIONS_MAX + 1


async def test_a_fresh_one_takes_the_oldests_room(scene: Scene) -> None:
    """`make_room` ends the connection that has been idle for longest, and no other."""
    one, two = scene.kept(2)
    scene.pool.make_room(OTHER)
    scene.pool.make_room(BACKEND)
    assert (one.is_usable, two.is_usable) == (False, True)
    assert scene.pool.take(BACKEND) is two


async def test_releasing_twice_is_releasing_once(scene: Scene) -> None:
    """A second release changes nothing: the connection is idle once, and not ended even if it says not reusable."""
    peer = scene.serve(scene.connect())
    scene.pool.release(peer, reusable=True)
    scene.pool.release(peer, reusable=False)
    assert scene.pool.idle[BACKEND] == [peer]
    assert peer.is_usable


@pytest.mark.parametrize(
    ("said", "reusable"),
    [
        (b"", True),
        (OK[:-1], True),
        (OK, False),
        (OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), True),
        (OK + b"!", True),
    ],
    ids=["no answer", "half an answer", "half a request", "a farewell", "too much"],
)
async def test_what_is_not_kept(scene: Scene, said: bytes, reusable: bool) -> None:
    """A connection whose request or answer is not whole, or that is to end, carries no other request."""
    peer = scene.connect()
    if said:
        peer.data_received(said)
    scene.pool.release(peer, reusable=reusable)
    assert not peer.is_usable
    assert (scene.pool.busy_count, scene.pool.idle_count) == (0, 0)


@pytest.mark.parametrize(
    ("said", "progress"),
    [
        (b"", "unanswered"),
        (b"HTTP/1.1 2", "answering"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", "answering"),
        (OK[:-1], "answering"),
    ],
    ids=["nothing", "a piece of a head", "an interim answer", "a head"],
)
@pytest.mark.parametrize("is_kept", [False, True])
async def test_a_failure_is_told_how_far_it_came(scene: Scene, said: bytes, progress: str, is_kept: bool) -> None:
    """`give_up` says whether a byte of an answer had come and whether the connection was a kept one, and ends it."""
    peer = scene.connect()
    if said:
        peer.data_received(said)
    failure = BackendUnavailable()
    scene.pool.give_up(peer, failure, is_kept=is_kept)
    assert (failure.progress, failure.was_kept) == (progress, is_kept)
    assert (scene.pool.busy_count, scene.pool.idle_count, peer.is_usable) == (0, 0, False)


@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize(("is_streamed", "progress"), [(False, "unsent"), (True, "unanswered")])
async def test_what_did_not_leave_the_outbox_is_unsent(
    scene: Scene, is_kept: bool, is_streamed: bool, progress: str
) -> None:
    """On a kept connection and on a fresh one, nothing was sent; of a body in pieces nobody knows how much was."""
    peer = scene.connect()
    peer.note_dropped()
    failure = BackendUnavailable()
    scene.pool.give_up(peer, failure, is_kept=is_kept, is_streamed=is_streamed)
    assert (failure.progress, failure.was_dropped) == (progress, is_kept and not is_streamed)


async def test_another_error_is_told_nothing(scene: Scene) -> None:
    """What is no failure of the backend's (a client that left) only ends the connection."""
    peer = scene.connect()
    scene.pool.give_up(peer, asyncio.CancelledError(), is_kept=True)
    assert (scene.pool.busy_count, peer.is_usable) == (0, False)


async def test_the_sweep_ends_what_is_overdue(scene: Scene) -> None:
    """Past its deadline a request fails with BackendTimedOut and an idle connection is ended; the others stay."""
    early = scene.kept(1)[0]
    slow = scene.connect()
    slow.expect()
    scene.now += IDLE_SECONDS_MAX - 10
    late = scene.serve(scene.connect())
    quick = scene.connect()
    quick.expect()
    dead = scene.serve(scene.connect())
    dead.abort()
    scene.now += 4.9
    scene.pool.sweep()
    assert (type(slow.error), quick.error) == (BackendTimedOut, None)
    assert scene.pool.idle[BACKEND] == [early, late]
    scene.now += 6
    scene.pool.sweep()
    assert type(quick.error) is BackendTimedOut
    assert scene.pool.idle[BACKEND] == [late]
    assert not early.is_usable


async def test_a_head_has_its_own_deadline(scene: Scene) -> None:
    """Bytes move the idle deadline, but not the head's; with the head here only silence counts."""
    trickles, answered = scene.connect(), scene.connect()
    for peer in (trickles, answered):
        peer.head_deadline = scene.now + 6
    scene.now += 4
    trickles.data_received(b"HTTP/1.1 200")
    answered.data_received(OK[:-1])
    scene.now += 3
    scene.pool.sweep()
    assert (type(trickles.error), answered.error) == (BackendTimedOut, None)


def ending(scene: Scene, peer: Peer, failures: list[type[BaseException]]) -> Callable[[], None]:
    """A request that gives its connection up as soon as it is woken, as the fast path does."""

    def woken() -> None:
        assert isinstance(peer.error, BackendFailed)
        failures.append(type(peer.error))
        scene.pool.give_up(peer, peer.error, is_kept=True)

    return woken


@pytest.mark.parametrize("ends", ["close", "sweep"])
async def test_who_is_woken_may_release_at_once(scene: Scene, ends: str) -> None:
    """Requests woken by the end of the pool, or by a sweep, release theirs within that very call; nothing is left."""
    failures: list[type[BaseException]] = []
    peers = [scene.connect(backend) for backend in (BACKEND, OTHER, BACKEND)]
    for peer in peers:
        peer.expect()
        peer.on_arrival(ending(scene, peer, failures))
    if ends == "close":
        idle = scene.serve(scene.connect())
        scene.pool.close()
        assert not idle.is_usable
    else:
        scene.now += 5.1
        scene.pool.sweep()
    assert failures == [BackendUnavailable if ends == "close" else BackendTimedOut] * 3
    assert (scene.pool.busy_count, scene.pool.idle_count) == (0, 0)
    assert not any(peer.is_usable for peer in peers)
