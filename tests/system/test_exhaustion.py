"""No descriptor, no process, no room on the disk, nobody who reads: the service goes on, and recovers by itself."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backend import Backend
from tests.gateway import ROOT, STATIC_KEY, Client, Gateway, until
from tests.system.test_processes import Held

Start = Callable[..., Gateway]
GET = f"GET /x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {STATIC_KEY}\r\n\r\n".encode()
CLIENTS = 40


@contextlib.contextmanager
def limited(pid: int, spare_count: int) -> Iterator[None]:
    """Meanwhile the process may open `spare_count` descriptors beside those that it has; far below 0, none at all."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    open_count = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(3, open_count + spare_count), before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def busy_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connected(stack: contextlib.ExitStack, gateway: Gateway, count: int) -> list[Client]:
    return [stack.enter_context(gateway.client()) for _ in range(count)]


# --- descriptors -----------------------------------------------------------------------------------------------------


def test_more_clients_than_descriptors(start: Start, backend: Backend) -> None:
    """Those beyond wait instead of being cut, and are all served in turn; a request under way is finished; the worker
    stays, is not busy with it, and says so once."""
    gateway = start()
    [pid] = gateway.worker_pids
    assert gateway.get("/x").status == 200
    held = Held(backend)
    backend.drop_idle()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(gateway.client()).send(GET)
        held.reached.acquire()
        with limited(pid, 12):
            clients = [
                client.send(GET.replace(b"/x", b"/health/live")) for client in connected(stack, gateway, CLIENTS)
            ]
            used = busy_seconds(pid)
            for client in clients:
                assert client.reply().status == 200
                client.close()
            assert busy_seconds(pid) - used < 2
            held.go.set()
            assert first.reply().body == b"ok"
        assert gateway.get("/x").body == b"ok"
    assert gateway.worker_pids == [pid]
    assert len(gateway.log(level="warn")) == 1
    assert gateway.log(level="warn")[0]["message"].startswith("file descriptors run out")
    until(lambda: gateway.log(message="there are file descriptors again: connections are accepted"), "the end of it")


def test_idle_connections_make_room(start: Start) -> None:
    """When clients hold all descriptors and ask nothing, those that ask are served within seconds, not a minute."""
    gateway = start()
    [pid] = gateway.worker_pids
    assert gateway.get("/x").status == 200
    with contextlib.ExitStack() as stack, limited(pid, 12):
        idle = connected(stack, gateway, CLIENTS)
        began = time.monotonic()
        assert gateway.get("/x").status == 200
        assert time.monotonic() - began < 20  # the keep-alive time is 65 s
        assert idle[0].is_closed()
    assert gateway.worker_pids == [pid]


def test_a_worker_without_descriptors_leaves_connections_to_others(start: Start) -> None:
    """One of two workers has none left: every new connection is served by the other, none is cut."""
    gateway = start(WEB_CONCURRENCY="2")
    until(lambda: len(gateway.log(message="worker 2 serves http://localhost:" + str(gateway.port))) == 1, "the second")
    poor = gateway.worker_pids[0]
    with contextlib.ExitStack() as stack, limited(poor, 8):
        for client in [each.send(GET) for each in connected(stack, gateway, CLIENTS)]:
            assert client.reply().status == 200
    assert poor in gateway.worker_pids


def test_no_descriptor_for_what_a_request_needs(start: Start, backend: Backend) -> None:
    """Backends, PostgreSQL and Redis cannot be connected to: 502 and 503, no 500; all heals when there is room."""
    away = {"DATABASE_URL": "postgresql://u:p@localhost:1/d", "REDIS_URL": "redis://localhost:1"}
    names = {"BACKEND_URLS": f"api=http://localhost:{backend.port}", "VALID_API_KEYS": f"{STATIC_KEY}:org_1:premium"}
    gateway = start(**away, **names)
    [pid] = gateway.worker_pids
    with gateway.client() as known, gateway.client() as unknown:
        for client in (known, unknown):
            client.send(b"GET /health/live HTTP/1.1\r\nHost: g\r\n\r\n").reply()
        with limited(pid, -1_000):
            assert known.send(GET).reply().status == 502
            assert unknown.send(GET.replace(STATIC_KEY.encode(), b"sk_live_" + b"0" * 32)).reply().status == 503
            late = gateway.client().send(GET)
            until(lambda: gateway.log(level="warn", service="api"), "the reason")
    with late:
        assert late.reply().status == 200
    assert gateway.get("/x").status == 200
    assert gateway.worker_pids == [pid]
    assert not gateway.log(level="error", status=500)


@pytest.mark.parametrize(
    ("spare_count", "told"),
    [(-2, "a worker cannot be started: Too many open files"), (0, "worker ended by an error")],
    ids=["before the fork", "after it"],
)
def test_no_descriptor_for_a_new_worker(spare_count: int, told: str, start: Start) -> None:
    """The arbiter cannot start a worker, or the worker cannot get ready: the log says so about once a second, and there
    is one as soon as there can be."""
    gateway = start()
    [pid] = gateway.worker_pids
    with limited(gateway.process.pid, spare_count):
        os.kill(pid, signal.SIGKILL)
        until(lambda: len(gateway.log(message=told)) >= 2, "two attempts")
    until(gateway.answers, "a new worker")
    assert gateway.stop() == 0


def test_it_takes_the_descriptors_it_may() -> None:
    """A soft limit below the hard one is raised at start."""
    code = "import resource as r; from app.descriptors import raise_limit; h = r.getrlimit(r.RLIMIT_NOFILE)[1]; "
    code += "r.setrlimit(r.RLIMIT_NOFILE, (64, h)); raise_limit(); print(*r.getrlimit(r.RLIMIT_NOFILE))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True, timeout=60
    )
    soft, hard = map(int, done.stdout.split())
    assert soft == (65_536 if hard < 0 else min(hard, 65_536))


# --- the log ---------------------------------------------------------------------------------------------------------


def test_the_disk_is_full(start: Start) -> None:
    """No byte of standard output and standard error can be written: requests are answered, a killed worker is replaced,
    and it ends in order."""
    with Path("/dev/full").open("wb") as full:
        gateway = start(stdout=full.fileno(), stderr=full.fileno(), WEB_CONCURRENCY="2")
    until(lambda: len(gateway.worker_pids) == 2, "two workers")
    killed = gateway.worker_pids[0]
    os.kill(killed, signal.SIGKILL)  # what the arbiter has to say about it cannot be said either
    assert all(gateway.get("/x").body == b"ok" for _ in range(50))
    until(lambda: len({*gateway.worker_pids} - {killed}) == 2, "a new worker")
    assert gateway.stop() == 0


def test_the_disk_is_full_for_a_while(start: Start, tmp_path: Path) -> None:
    """Standard error says that the log fails, once a process; when there is room again the log says how many lines
    were lost; every line that is there is whole, but for the one in which the disk became full."""
    log = tmp_path / "log"
    with log.open("wb") as file:
        gateway = start(stdout=file.fileno())
    [pid] = gateway.worker_pids
    until(lambda: b"/health/live" in log.read_bytes(), "the first line of a request")
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    full_bytes = log.stat().st_size + 700  # two lines and a half
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (full_bytes, limits[1]))
    assert all(gateway.get("/x").body == b"ok" for _ in range(50))
    until(lambda: gateway._errors, "standard error to tell")
    used = busy_seconds(pid)
    assert gateway.get("/x").body == b"ok"
    resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    until(lambda: gateway.get("/x").body == b"ok" and b"log lines were dropped" in log.read_bytes(), "the count")
    assert busy_seconds(pid) - used < 1
    assert gateway.stop() == 0
    [told] = [json.loads(line)["message"] for line in gateway._errors]
    assert told == "standard output fails (File too large): log lines are dropped until it works again"
    check_lines(log.read_text().splitlines())


def check_lines(lines: list[str]) -> None:
    """At most one is torn, and those that are there and those that are counted are all."""
    whole = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    assert len(whole) >= len(lines) - 1
    [told] = [line["message"] for line in whole if "dropped" in line.get("message", "")]
    assert int(told.split()[0]) + sum(line.get("path") == "/x" for line in whole) >= 51


def test_the_reader_of_the_log_is_gone(start: Start) -> None:
    """Standard output is a pipe whose reader has ended: requests are answered, standard error says so once."""
    reader, writer = os.pipe()
    os.close(reader)
    gateway = start(stdout=writer)
    os.close(writer)
    assert all(gateway.get("/x").body == b"ok" for _ in range(50))
    assert gateway.stop() == 0
    told = [json.loads(line)["message"] for line in gateway._errors]
    assert set(told) == {"standard output fails (Broken pipe): log lines are dropped until it works again"}
    assert len(told) <= 2  # a line for each process


def test_nobody_reads_the_log(start: Start) -> None:
    """Standard output is a pipe that is full: requests are answered promptly, and SIGTERM ends it."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, bytes(65_536)):
            pass
    os.set_blocking(writer, True)
    gateway = start(stdout=writer)
    os.close(writer)
    began = time.monotonic()
    assert all(gateway.get("/x").body == b"ok" for _ in range(50))
    assert time.monotonic() - began < 15
    assert gateway.stop() == 0
    os.close(reader)
