"""The pool of connections to backends: what is kept, what is ended, and that nobody is left waiting."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from app.core.errors import BackendTimedOut, BackendUnavailable
from app.core.model import Backend
from app.core.relay.upstream import Answer, Upstream
from tests import backend as raw
from tests.eventually import eventually

GET = b"GET / HTTP/1.1\r\nHost: b\r\n\r\n"
Script = Callable[[raw.Connection], None]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream(connect_seconds=1, idle_seconds=5) as running:
        yield running


def at(running: raw.Backend) -> Backend:
    return Backend("b", "http", "127.0.0.1", running.port)


def silent(connection: raw.Connection) -> None:
    while connection.more():
        pass


class Upload:
    """A body that never ends. `fails` ends it with an error of the client's."""

    is_whole = False

    def __init__(self) -> None:
        self.fails = asyncio.Event()
        self._has_begun = False

    def encode_rest(self) -> bytes:
        raise AssertionError("asked for a rest that is not there")

    async def piece(self) -> bytes:
        if not self._has_begun:
            self._has_begun = True
            return b"1\r\na\r\n"
        await self.fails.wait()
        raise ConnectionAbortedError("the client is gone")


async def whole(answer: Answer) -> bytes:
    body = b""
    while not answer.is_complete:
        await answer.more()
        body += answer.take()
    await answer.close()
    return body + answer.take()


async def test_a_whole_exchange_leaves_its_connection_for_the_next(upstream: Upstream) -> None:
    """After an answer was taken and closed, twice even, one idle connection is there and none is busy."""
    with raw.Backend() as backend:
        for _ in range(3):
            answer = await upstream.send(at(backend), GET)
            assert await whole(answer) == b"ok"
            await answer.close()
            assert (upstream.busy_count, upstream.idle_count) == (0, 1)
        assert backend.accepted == 1


async def test_nothing_is_left_of_cancelled_requests(upstream: Upstream) -> None:
    """However far requests had come when they were cancelled, no connection is busy and no task is left over."""

    def script(connection: raw.Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
        connection.more()

    async def ask(number: int) -> None:
        answer = await upstream.send(at(backend), GET, Upload() if number % 2 else None)
        try:
            while True:
                await answer.more()
                answer.take()
        finally:
            await answer.close()

    before = len(asyncio.all_tasks())
    with raw.Backend(script) as backend:
        for number in range(200):
            task = asyncio.create_task(ask(number))
            for _ in range(number % 11):
                await asyncio.sleep(0)
            if number % 20 == 0:
                await asyncio.sleep(0.01)  # let some get as far as the body
            task.cancel()
            if number % 3 == 0:
                await asyncio.sleep(0)
                task.cancel()  # once more, while it is ending
            await asyncio.gather(task, return_exceptions=True)
        assert (upstream.busy_count, upstream.idle_count) == (0, 0)
        await eventually(lambda: len(asyncio.all_tasks()) <= before)


async def test_a_client_that_fails_ends_the_request(upstream: Upstream) -> None:
    """The body's own error is what `send` raises, at once, though the backend has not answered."""
    with raw.Backend(silent) as backend:
        upload = Upload()
        sending = asyncio.create_task(upstream.send(at(backend), GET, upload))
        await eventually(lambda: upstream.busy_count == 1)
        upload.fails.set()
        with pytest.raises(ConnectionAbortedError):
            await asyncio.wait_for(sending, 4)
        assert upstream.busy_count == 0


async def test_nobody_waits_for_a_pool_that_is_closed() -> None:
    """A request that waits for its backend when the pool closes fails; it does not wait for ever."""
    with raw.Backend(silent) as backend:
        async with Upstream(connect_seconds=1, idle_seconds=60) as upstream:
            waiting = asyncio.create_task(upstream.send(at(backend), GET))
            await eventually(lambda: upstream.busy_count == 1)
        with pytest.raises(BackendUnavailable):
            await asyncio.wait_for(waiting, 10)


async def test_silence_is_measured_by_the_clock() -> None:
    """A request fails when the clock has passed its time-out, and not before."""
    now = [0.0]
    with raw.Backend(silent) as backend:
        async with Upstream(connect_seconds=1, idle_seconds=0.2, clock=lambda: now[0]) as upstream:
            waiting = asyncio.create_task(upstream.send(at(backend), GET))
            await eventually(lambda: upstream.busy_count == 1)
            now[0] = 0.19
            await asyncio.sleep(0.1)  # several sweeps
            assert not waiting.done()
            now[0] = 0.21
            with pytest.raises(BackendTimedOut):
                await asyncio.wait_for(waiting, 10)


async def test_a_connection_that_speaks_unasked_is_not_used(upstream: Upstream) -> None:
    """Bytes on an idle connection end it: they would have become the next request's answer."""
    speak = asyncio.Event()
    loop = asyncio.get_running_loop()

    def script(connection: raw.Connection) -> None:
        connection.read()
        connection.send(raw.OK)
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(speak.wait(), loop).result(5)
        connection.send(raw.OK)

    with raw.Backend(script) as backend:
        assert await whole(await upstream.send(at(backend), GET)) == b"ok"
        backend.script = raw.answer_ok
        speak.set()
        await eventually(lambda: not any(peer.is_usable for peer in upstream.pool.idle[at(backend)]))
        assert await whole(await upstream.send(at(backend), GET)) == b"ok"
        assert backend.accepted == 2
