from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backend import OK, Backend, Connection, answer
from tests.eventually import eventually
from tests.gateway import ROOT, until
from tools import population
from tools.embedded import ReservedPort
from tools.generator import Generator, fire, read_samples
from tools.plan import Plan
from tools.ticker import Ticker


@contextlib.contextmanager
def origin() -> Iterator[int]:
    reserved = ReservedPort()
    port = reserved.number
    process = subprocess.Popen([sys.executable, "-m", "tools.origin", "--port", str(port)], cwd=ROOT)
    try:
        until(lambda: not fire(Plan(f"http://127.0.0.1:{port}/", seconds=0.01)).errors, "the backend")
        yield port
    finally:
        process.terminate()
        assert process.wait(10) == 0


def test_closed_loop_counts_every_answer() -> None:
    """As many requests as the backend answers are sent; each latency is counted once, and percentiles are in order."""
    ticks: list[float] = []
    with origin() as port:
        outcome = fire(Plan(f"http://127.0.0.1:{port}/x", connections=4, seconds=0.4, warm_seconds=0.1), ticks.append)
    assert outcome.errors == {}
    assert outcome.answers == pytest.approx(outcome.per_second * 0.4, rel=0.05)
    assert 0 < outcome.p50_ms <= outcome.p90_ms <= outcome.p99_ms
    assert outcome.answers > 100
    assert sum(ticks) == pytest.approx(0.5, abs=0.3)


def test_open_loop_keeps_its_rate() -> None:
    """With a rate so many requests are due in the time, whatever the backend could do."""
    with origin() as port:
        outcome = fire(Plan(f"http://127.0.0.1:{port}/x", connections=4, seconds=0.5, rate=400))
    assert outcome.errors == {}
    assert outcome.answers == pytest.approx(200, abs=3)


def test_stalled_backend_cannot_hide_the_requests_that_wait() -> None:
    """In an open loop a latency counts from when a request was due, not from when a busy connection let it go."""
    resume = threading.Event()

    def stall_once(connection: Connection) -> None:
        while connection.read():
            resume.wait(10)
            connection.send(OK)

    with Backend(stall_once) as backend, Generator(Plan(backend.url, seconds=1, rate=100)) as generator:
        until(lambda: backend.requests, "the first request")
        threading.Timer(0.5, resume.set).start()
        outcome = generator.wait()
    assert outcome.errors == {}
    assert outcome.answers == pytest.approx(100, abs=3)
    assert outcome.p99_ms > 400
    assert outcome.p90_ms > 250


def test_refusals_are_errors() -> None:
    """Answers other than 2xx count by their status, and neither as throughput nor as latency."""
    with Backend(answer(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")) as backend:
        outcome = fire(Plan(backend.url, seconds=0.2))
    assert (outcome.answers, outcome.per_second, list(outcome.errors)) == (0, 0, ["429"])


def test_lost_connections_are_errors_and_replaced() -> None:
    """A backend that hangs up instead of answering costs one error a request, and the load goes on."""
    with Backend(hang_up) as backend:
        outcome = fire(Plan(backend.url, connections=2, seconds=0.3))
    assert outcome.errors["connection lost"] > 2
    assert outcome.answers == 0


def hang_up(connection: Connection) -> None:
    connection.read()


def test_connections_that_are_closed_after_each_answer() -> None:
    """A backend that keeps no connection alive is measured over new ones, without errors."""
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    with Backend(answer(closing)) as backend:
        outcome = fire(Plan(backend.url, connections=2, seconds=0.3))
    assert outcome.errors == {}
    assert outcome.answers > 2


def test_nobody_listens() -> None:
    """Where nothing listens, attempts are counted as errors and are not made without a pause."""
    reserved = ReservedPort()
    outcome = fire(Plan(f"http://127.0.0.1:{reserved.number}/", connections=2, seconds=0.3))
    assert outcome.answers == 0
    assert 2 <= outcome.errors["no connection"] <= 20


def test_malformed_answer() -> None:
    """What is not HTTP is an error, not an endless wait."""
    with Backend(answer(b"SSH-2.0-nobody\r\n\r\n")) as backend:
        outcome = fire(Plan(backend.url, seconds=0.2))
    assert outcome.errors["connection lost"] >= 1


def test_each_key_of_a_population_once(tmp_path: Path) -> None:
    """`once` sends each numbered key exactly once and ends; the samples tell when each request started."""
    with Backend() as backend:
        plan = Plan(backend.url + "/p?q", seconds=20, population=40, order="once", samples=str(tmp_path / "samples"))
        outcome = fire(plan)
        sent = [request.split(b"Bearer ")[1].split(b"\r\n")[0] for request in backend.requests]
    starts, latencies = read_samples(tmp_path / "samples")
    assert sent == [population.key(number) for number in range(40)]
    assert all(request.startswith(b"GET /p?q HTTP/1.1\r\nHost: 127.0.0.1:") for request in backend.requests)
    assert (outcome.answers, outcome.errors, len(starts), len(latencies)) == (40, {}, 40, 40)
    assert all(abs(time.time() - start) < 20 for start in starts)


def test_random_keys_of_a_population() -> None:
    """`random` draws from the whole population and from nothing else."""
    with Backend() as backend:
        fire(Plan(backend.url, seconds=0.3, population=3))
        sent = {request.split(b"Bearer ")[1].split(b"\r\n")[0] for request in backend.requests}
    assert sent == {population.key(number) for number in range(3)}


def test_stop_ends_a_run_early() -> None:
    """`stop` ends a run of minutes at once, and what was measured until then is told."""
    started = time.monotonic()
    with Backend() as backend, Generator(Plan(backend.url, seconds=300)) as generator:
        until(lambda: len(backend.requests) > 10, "requests")
        generator.stop()
        outcome = generator.wait()
    assert time.monotonic() - started < 15
    assert outcome.errors == {}
    assert outcome.answers > 10


def test_key_is_not_shown() -> None:
    """A plan's repr leaves its key out: it may end up in a traceback."""
    assert "sk_test" not in repr(Plan("http://localhost/", "sk_test_secret"))


async def test_ticker_without_timerfd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no timerfd, all ticks come as well, each with the moment that was meant."""
    monkeypatch.setattr(sys, "platform", "darwin")
    whens: list[float] = []
    ticker = Ticker(0.0004, whens.append)
    await eventually(lambda: len(whens) >= 20)
    ticker.close()
    assert [later - sooner for sooner, later in itertools.pairwise(whens)] == pytest.approx([0.0004] * (len(whens) - 1))
