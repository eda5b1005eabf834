"""The load generator, a process of its own: reads one Plan from standard input, answers with an Outcome.

Standard output gets a line `.` every TICK_SECONDS and the Outcome's JSON as the last line. When standard input ends,
the run ends early and in good order. Requests are ready-made bytes; of an answer only its end and its status are read.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

import httptools
import uvloop

from tools import population
from tools.plan import Outcome, Plan
from tools.ticker import Ticker

TICK_SECONDS: Final = 0.1
REQUESTS_MAX: Final = 5_000_000
"""Counted in one run: 80 MB of samples."""
RETRY_SECONDS: Final = 0.05
GRACE_SECONDS: Final = 5.0
"""For answers that are still under way at the end; what then is missing counts as "no answer"."""


def requests(plan: Plan) -> Iterator[bytes]:
    """The bytes to send, one item a request."""
    url = urlsplit(plan.url)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    head = f"GET {target} HTTP/1.1\r\nHost: {url.netloc}\r\n".encode()
    if not plan.population:
        authorization = f"Authorization: Bearer {plan.key}\r\n".encode() if plan.key else b""
        return repeat(head + authorization + b"\r\n")
    head += b"Authorization: Bearer "
    return (head + population.key(number) + b"\r\n\r\n" for number in _numbers(plan))


def _numbers(plan: Plan) -> Iterator[int]:
    if plan.order == "once":
        yield from range(plan.population)
    draw = random.Random(1).random  # noqa: S311 - the same sequence in every run, for comparisons
    while plan.order == "random":
        yield int(draw() * plan.population)


class Connection(asyncio.Protocol):
    """One kept-alive connection with at most one request under way."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._parser = httptools.HttpResponseParser(self)
        self._due: float | None = None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._run.on_free(self)

    def send(self, request: bytes, due: float) -> None:
        """`due`: when the request should have been sent, in perf_counter seconds."""
        self._due = due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_message_complete(self) -> None:
        status, due = self._parser.get_status_code(), self._due
        if due is None or status < 200:
            return
        self._due = None
        self._run.note(status, due)
        if self._parser.should_keep_alive():
            self._run.on_free(self)
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._run.on_lost(self)
        if self._due is not None:
            self._run.note_failure("connection lost", self._due)
        if not self.lost.done():
            self.lost.set_result(None)


class Run:
    """One plan being carried out. `pending` requests were sent or are due, and not answered yet."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._requests = requests(plan)
        self._free: list[Connection] = []
        self._waiting: deque[float] = deque()  # open loop: due, and no connection was free
        self._over = asyncio.Event()
        self._began = time.perf_counter() + plan.warm_seconds
        self._ended = self._began + plan.seconds
        self._epoch = time.time() - time.perf_counter()
        self.starts = array("d")
        self.latencies = array("d")
        self.errors: Counter[str] = Counter()
        self.pending = 0

    async def carry_out(self) -> Outcome:
        """Returns after the plan's time, or sooner: all sent, or `stop` was called."""
        holders = [asyncio.create_task(self._hold()) for _ in range(self._plan.connections)]
        ticker = Ticker(1 / self._plan.rate, self._on_due) if self._plan.rate else None
        loop = asyncio.get_running_loop()
        loop.call_later(self._ended - time.perf_counter(), self._over.set)
        await self._over.wait()
        self._ended = min(self._ended, time.perf_counter())
        if ticker is not None:
            ticker.close()
        await self._settle()
        for holder in holders:
            holder.cancel()
        await asyncio.gather(*holders, return_exceptions=True)
        return self._outcome()

    def stop(self) -> None:
        self._over.set()

    async def _settle(self) -> None:
        deadline = time.perf_counter() + GRACE_SECONDS
        while self.pending and time.perf_counter() < deadline:  # noqa: ASYNC110 - it may become pending again
            await asyncio.sleep(0.01)
        if self.pending:
            self.errors["no answer"] += self.pending

    def _outcome(self) -> Outcome:
        if self._plan.samples:
            with Path(self._plan.samples).open("wb") as file:
                self.starts.tofile(file)
                self.latencies.tofile(file)
        # uvloop may be a moment late or early; a plan that ended early has no more than what it had
        seconds = max(self._ended - self._began, 1e-3)
        return Outcome.of(self.latencies, seconds, dict(self.errors))

    async def _hold(self) -> None:
        """Keeps one connection up until cancelled."""
        url = urlsplit(self._plan.url)
        host, port = url.hostname or "", url.port or {"http": 80, "https": 443}[url.scheme]
        tls = True if url.scheme == "https" else None
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, connection = await loop.create_connection(lambda: Connection(self), host, port, ssl=tls)
            except OSError:
                self.errors["no connection"] += 1
                await asyncio.sleep(RETRY_SECONDS)
                continue
            try:
                await connection.lost
            finally:
                connection.transport.abort()

    def on_free(self, connection: Connection) -> None:
        """A connection can take the next request: at once in a closed loop, when one is due in an open one."""
        if self._plan.rate:
            if self._waiting:
                self.pending -= 1
                self._send(connection, self._waiting.popleft())
            else:
                self._free.append(connection)
        elif not self._over.is_set():
            self._send(connection, time.perf_counter())

    def on_lost(self, connection: Connection) -> None:
        """A connection takes no more requests: not even one that is due before its replacement is up."""
        if connection in self._free:
            self._free.remove(connection)

    def _on_due(self, when: float) -> None:
        if self._free:
            self._send(self._free.pop(), when)
        else:
            self.pending += 1
            self._waiting.append(when)

    def _send(self, connection: Connection, due: float) -> None:
        request = next(self._requests, None)
        if request is None:
            self._over.set()
        else:
            self.pending += 1
            connection.send(request, due)

    def note(self, status: int, due: float) -> None:
        """An answer came. Only those that were due in the plan's counted time count."""
        self.pending -= 1
        if not self._began <= due < self._ended:
            return
        if not 200 <= status < 300:
            self.errors[str(status)] += 1
            return
        self.starts.append(due + self._epoch)
        self.latencies.append(time.perf_counter() - due)
        if len(self.latencies) >= REQUESTS_MAX:
            self._over.set()

    def note_failure(self, kind: str, due: float) -> None:
        """A request was not answered."""
        self.pending -= 1
        if due < self._ended:
            self.errors[kind] += 1


async def _ticks() -> None:
    while True:
        await asyncio.sleep(TICK_SECONDS)
        print(".", flush=True)


async def _main() -> None:
    loop = asyncio.get_running_loop()
    plan = Plan.parse(sys.stdin.buffer.readline())
    run = Run(plan)
    loop.add_reader(sys.stdin, run.stop)
    ticks = asyncio.create_task(_ticks())
    outcome = await run.carry_out()
    ticks.cancel()
    print(outcome.as_json().decode(), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main())
