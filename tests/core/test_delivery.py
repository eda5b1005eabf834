"""The course of a request over several targets: trials that nobody notices, and the queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from app.core.errors import BackendBusy, BackendFailed, BackendUnavailable
from app.core.model import Backend
from app.core.relay.balancer import Balancer
from app.core.relay.delivery import HOLD_SECONDS, Delivery
from app.core.relay.target import Place
from app.core.relay.upstream import Answer, Outgoing, Upstream
from tests import backend as raw
from tests.eventually import eventually

HEAD_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream(connect_seconds=0.5, idle_seconds=30, deadline_seconds=60) as running:
        yield running


def between(*running: raw.Backend, connections_max: int = 100) -> Balancer:
    """A balancer whose chances are never in a target's favour: pauses are whole."""
    backends = [Backend("a", "http", "127.0.0.1", each.port) for each in running]
    return Balancer("a", backends, connections_max=connections_max, tell=lambda *_: None, chance=lambda: 0.0)


def set_aside(balancer: Balancer, number: int) -> None:
    """With the pause of one second just over."""
    target = balancer.targets[number]
    for _ in range(3):
        target.outstanding += 1
        Place(balancer, target, time.monotonic()).leave(failure=BackendUnavailable())
    target.standing.retry_at = time.monotonic()


def delivery(upstream: Upstream, balancer: Balancer, method: bytes = b"GET", sent: Outgoing | None = None) -> Delivery:
    def head_for(backend: Backend) -> bytes:
        framing = b"" if sent is None else b"Transfer-Encoding: chunked\r\n"
        return b"%b / HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (method, backend.authority, framing)

    return Delivery(upstream, balancer, head_for, time.monotonic(), method, sent)


async def body(answer: Answer) -> bytes:
    taken = answer.take()
    while not answer.is_complete:
        await answer.more()
        taken += answer.take()
    await answer.close()
    return taken


def half_an_answer(connection: raw.Connection) -> None:
    connection.read()
    connection.send(HEAD_OK + b"o")


def hang_up(connection: raw.Connection) -> None:
    connection.read()


def silence(connection: raw.Connection) -> None:
    connection.read()
    connection.more()


@pytest.mark.parametrize("script", [half_an_answer, silence])
async def test_a_trial_that_fails_is_not_noticed(script: Callable[[raw.Connection], None], upstream: Upstream) -> None:
    """The target on trial breaks off its answer, or has none in the time that the pause took: another one answers."""
    with raw.Backend(script) as bad, raw.Backend() as good:
        balancer = between(bad, good)
        set_aside(balancer, 0)
        began = time.monotonic()
        assert await body(await delivery(upstream, balancer).run()) == b"ok"
        assert time.monotonic() - began < 5  # BACKEND_TIMEOUT would be 30
        assert (len(bad.requests), len(good.requests)) == (1, 1)
        assert [target.outstanding for target in balancer.targets] == [0, 0]
        assert balancer.targets[0].standing.pause_seconds == 2
        assert not balancer.targets[0].is_being_tried


async def test_a_trial_that_succeeds_restores(upstream: Upstream) -> None:
    """A whole answer brings the target back, and costs the budget nothing."""
    with raw.Backend() as back, raw.Backend() as good:
        balancer = between(back, good)
        set_aside(balancer, 0)
        assert await body(await delivery(upstream, balancer).run()) == b"ok"
        assert len(back.requests) == 1
        assert balancer.targets[0].standing.is_well
        assert [balancer.budget.spend() for _ in range(11)] == [True] * 10 + [False]


async def test_a_trial_without_cover_has_all_the_time(upstream: Upstream) -> None:
    """A request that cannot be repeated tries a target only after a second pause, and its failure is its own."""
    with raw.Backend(half_an_answer) as bad, raw.Backend() as good:
        balancer = between(bad, good)
        set_aside(balancer, 0)
        assert await body(await delivery(upstream, balancer, b"POST").run()) == b"ok"
        assert bad.requests == []
        balancer.targets[0].standing.retry_at -= 1
        with pytest.raises(BackendFailed):
            await body(await delivery(upstream, balancer, b"POST").run())
        assert len(bad.requests) == 1


async def test_a_stream_on_trial_is_held_for_a_second_at_most(upstream: Upstream) -> None:
    """An answer that goes on reaches its client, and the target gets other requests meanwhile."""
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def script(connection: raw.Connection) -> None:
        connection.read()
        connection.send(HEAD_OK + b"o")
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)
        connection.send(b"k")

    with raw.Backend(script) as back, raw.Backend() as good:
        balancer = between(back, good)
        set_aside(balancer, 0)
        began = time.monotonic()
        answer = await delivery(upstream, balancer).run()
        assert HOLD_SECONDS - 0.1 <= time.monotonic() - began < HOLD_SECONDS + 8
        assert answer.take() == b"o"
        assert balancer.targets[0].standing.is_well
        release.set()
        assert await body(answer) == b"k"
        assert balancer.targets[0].standing.failures == 0


async def test_an_answer_that_broke_off_on_trial_is_repeated_once(upstream: Upstream) -> None:
    """A backend has begun to answer: the request goes to one other, not to every other, and the budget pays for it."""
    with raw.Backend(half_an_answer) as bad, raw.Backend(hang_up) as worse, raw.Backend(hang_up) as too:
        balancer = between(bad, worse, too)
        set_aside(balancer, 0)
        with pytest.raises(BackendFailed):
            await delivery(upstream, balancer).run()
        assert len(bad.requests) == 1
        assert len(worse.requests) + len(too.requests) == 1
        assert [balancer.budget.spend() for _ in range(10)] == [True] * 9 + [False]


async def test_who_is_cancelled_in_the_queue_leaves_its_place(upstream: Upstream) -> None:
    """A place granted in the very turn of the loop in which its request was cancelled goes to the next in line."""
    with raw.Backend() as backend:
        balancer = between(backend, connections_max=1)
        only = await delivery(upstream, balancer).run()
        first, second, third = (asyncio.create_task(delivery(upstream, balancer).run()) for _ in range(3))
        await eventually(lambda: len(balancer.queue) == 3)
        second.cancel()
        await only.close()  # grants the place to the first
        first.cancel()
        assert await body(await asyncio.wait_for(third, 1)) == b"ok"
        await asyncio.gather(first, second, return_exceptions=True)
        assert first.cancelled()
        assert balancer.targets[0].outstanding == 0
        assert not balancer.queue


async def test_nothing_is_left_of_a_wait_that_was_too_long(upstream: Upstream) -> None:
    """BackendBusy after the time for a connection, and the queue is empty."""
    with raw.Backend() as backend:
        balancer = between(backend, connections_max=1)
        only = await delivery(upstream, balancer).run()
        with pytest.raises(BackendBusy):
            await delivery(upstream, balancer).run()
        assert not balancer.queue
        await only.close()
        assert await body(await delivery(upstream, balancer).run()) == b"ok"


CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


class Upload:
    """A body that gives its bytes once, like a client's: at once, or in pieces."""

    def __init__(self, *, is_whole: bool) -> None:
        self.is_whole = is_whole
        self._left = CHUNKS

    def encode_rest(self) -> bytes:
        rest, self._left = self._left, b""
        return rest

    async def piece(self) -> bytes:
        return self.encode_rest()


async def dropped(upstream: Upstream, balancer: Balancer, sent: Outgoing | None) -> asyncio.Task[Answer]:
    """A POST whose kept connection ends in the turn of the loop in which it was to be written."""
    assert await body(await delivery(upstream, balancer).run()) == b"ok"
    posting = asyncio.create_task(delivery(upstream, balancer, b"POST", sent).run())
    await asyncio.sleep(0)
    (peer,) = upstream.pool._busy
    assert peer._transport is not None
    peer._transport.abort()
    return posting


@pytest.mark.parametrize("has_body", [False, True])
@pytest.mark.parametrize("others", [0, 1])
async def test_what_was_never_written_is_sent_once_more(has_body: bool, others: int, upstream: Upstream) -> None:
    """Whatever its method, with all of its body, on a new connection, without a look at the budget for repeats."""
    with raw.Backend() as one, raw.Backend() as other:
        balancer = between(one, *[other] * others)
        posting = await dropped(upstream, balancer, Upload(is_whole=True) if has_body else None)
        assert await body(await posting) == b"ok"
        served = [head for head in one.requests + other.requests if head.startswith(b"POST")]
        assert [head.partition(b"\r\n\r\n")[2] for head in served] == [CHUNKS if has_body else b""]
        assert one.accepted + other.accepted == 2
        assert [balancer.budget.spend() for _ in range(11)] == [True] * 10 + [False]
        assert [target.outstanding for target in balancer.targets] == [0] * (1 + others)


async def test_an_upload_that_has_begun_is_not_sent_again(upstream: Upstream) -> None:
    """Of a body that still arrives some may be gone already: its request fails, and no backend sees any of it."""
    with raw.Backend() as backend:
        posting = await dropped(upstream, between(backend), Upload(is_whole=False))
        with pytest.raises(BackendFailed) as failure:
            await posting
        assert (failure.value.progress, failure.value.was_kept) == ("unanswered", True)
        assert [head[:4] for head in backend.requests] == [b"GET "]
