"""`python -m app` as people run it: start, mistakes, workers that die or hang, and every way to end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backend import OK, Backend, Connection
from tests.gateway import STATIC_KEY, Client, Gateway, until

Start = Callable[..., Gateway]
GET = f"GET /x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {STATIC_KEY}\r\n\r\n".encode()
HEALTH = b"GET /health/ready HTTP/1.1\r\nHost: g\r\n\r\n"


def messages(gateway: Gateway) -> list[str]:
    return [line["message"] for line in gateway.log() if "message" in line]


def is_refused(gateway: Gateway) -> bool:
    try:
        socket.create_connection(("127.0.0.1", gateway.port), timeout=0.2).close()
    except ConnectionRefusedError:
        return True
    except TimeoutError:  # no handshakes any more, and not closed yet: the kernel would repeat it after a second
        return False
    return False


def processes(gateway: Gateway) -> list[str]:
    """What still runs of a gateway: every process of its session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == gateway.process.pid and fields[0] != "Z":
                found.append(stat.parent.name)
    return found


class Held:
    """A backend's script that answers when it is told to, and knows when requests have come."""

    def __init__(self, backend: Backend) -> None:
        self.reached = threading.Semaphore(0)
        self.go = threading.Event()
        backend.script = self

    def __call__(self, connection: Connection) -> None:
        while connection.read():
            self.reached.release()
            self.go.wait(20)
            connection.send(OK)


# --- start ----------------------------------------------------------------------------------------------------------


def test_what_it_says_at_start(start: Start) -> None:
    """Without database and Redis: the cache's line, then that it serves and where; all of it JSON."""
    gateway = start()
    wanted = [
        "✅ Initialized API key cache (TTL: 15m)",
        f"🚀 Gateway server starting on http://localhost:{gateway.port}",
    ]
    until(lambda: messages(gateway) == wanted, f"exactly {wanted}")
    assert "".join(gateway._errors) == ""


def test_every_mistake_is_told_at_once(start: Start) -> None:
    """Status 1, one line for each mistake on standard error, nothing else, no traceback."""
    gateway = start(wait=False, GATEWAY_PORT="x", BACKEND_URLS="", LOG_LEVEL="loud", WEB_CONCURRENCY="0")
    assert gateway.process.wait(10) == 1
    lines = until(lambda: len(gateway._errors) == 4 and gateway._errors, "four lines")
    assert all(line.startswith("Failed to load configuration: ") for line in lines), lines
    for name in ("GATEWAY_PORT", "BACKEND_URLS", "LOG_LEVEL", "WEB_CONCURRENCY"):
        assert sum(f": {name}: " in line for line in lines) == 1, (name, lines)
    assert gateway._lines == []


def test_a_number_of_workers_that_is_none(start: Start) -> None:
    """WEB_CONCURRENCY, which gunicorn reads too, by itself: text gets the one line, an empty one counts as not set."""
    gateway = start(wait=False, WEB_CONCURRENCY="two")
    assert gateway.process.wait(10) == 1
    [line] = until(lambda: gateway._errors, "a line")
    assert line.startswith("Failed to load configuration: WEB_CONCURRENCY: 'two' will not do")
    assert start(WEB_CONCURRENCY="").get("/x").body == b"ok"


def test_a_port_that_is_taken(start: Start) -> None:
    """Status 1 and one line that names the port and what to do."""
    first = start()
    second = start(wait=False, GATEWAY_PORT=str(first.port))
    assert second.process.wait(10) == 1
    [line] = until(lambda: second._errors, "a line")
    assert line.startswith(f"Failed to start: port {first.port} cannot be used (Address already in use)")
    assert first.get("/x").body == b"ok"


def test_gunicorns_own_settings_are_not_heard(start: Start, tmp_path: Path) -> None:
    """GUNICORN_CMD_ARGS and a gunicorn.conf.py in the folder change nothing."""
    folder = tmp_path / "gateway-1"
    folder.mkdir()
    (folder / "gunicorn.conf.py").write_text("raise SystemExit('read')")
    gateway = start(GUNICORN_CMD_ARGS="--workers 7 --bind 127.0.0.1:1 --daemon")
    assert len(gateway.worker_pids) == 1
    assert gateway.get("/x").body == b"ok"
    assert gateway.stop() == 0


def test_two_gateways_at_once(start: Start) -> None:
    """Two on one machine do not meet: the end of one is nothing to the other."""
    first, second = start(), start()
    assert first.get("/x").body == second.get("/x").body == b"ok"
    assert first.stop() == 0
    assert second.get("/x").body == b"ok"


def test_a_worker_that_cannot_start_says_why_and_does_not_spin(start: Start) -> None:
    """Each attempt logs its reason, there is about one a second, and SIGTERM ends it all."""
    gateway = start(module="tests.system.broken", wait=False)
    until(lambda: messages(gateway).count("worker ended by an error") >= 2, "two attempts")
    tried = time.monotonic()
    until(lambda: messages(gateway).count("worker ended by an error") >= 4, "two more")
    assert time.monotonic() - tried > 1
    assert "nothing works today" in gateway.log(message="worker ended by an error")[0]["exception"]
    assert gateway.stop() == 0
    assert processes(gateway) == []


# --- workers --------------------------------------------------------------------------------------------------------


def test_a_killed_worker_costs_its_own_requests_only(start: Start, backend: Backend) -> None:
    """SIGKILL for one of two workers: what it had is cut, what the other has is answered, new connections are served
    from the first on, a new worker comes, the log tells of it."""
    held = Held(backend)
    gateway = start(WEB_CONCURRENCY="2")
    until(lambda: any("worker 2 serves" in each for each in messages(gateway)), "the second to serve")
    killed, other = before = gateway.worker_pids
    with contextlib.ExitStack() as stack:
        of_killed = requests_at(killed, stack, gateway, held, frozen=other)
        of_other = requests_at(other, stack, gateway, held, frozen=killed)
        os.kill(killed, signal.SIGKILL)
        assert all(gateway.get("/health/live", key=None).status == 200 for _ in range(50))
        held.go.set()
        assert all(client.is_closed() for client in of_killed)
        assert [client.reply().body for client in of_other] == [b"ok"] * len(of_other)
    until(lambda: len({*gateway.worker_pids} - {*before}) == 1 and len(gateway.worker_pids) == 2, "a new worker")
    until(lambda: any("SIGKILL" in each for each in messages(gateway)), "the log to tell")


def requests_at(pid: int, stack: contextlib.ExitStack, gateway: Gateway, held: Held, *, frozen: int) -> list[Client]:
    """Requests that one worker took to the backend, while the other could not."""
    os.kill(frozen, signal.SIGSTOP)
    try:
        clients = [stack.enter_context(gateway.client()).send(GET) for _ in range(3)]
        for _ in clients:
            assert held.reached.acquire(timeout=10), f"worker {pid} took nothing"
    finally:
        os.kill(frozen, signal.SIGCONT)
    return clients


def test_a_hung_worker_is_replaced(start: Start) -> None:
    """A worker that does not move any more takes no new connection from its sibling, and is killed and replaced."""
    gateway = start(module="tests.system.impatient", WEB_CONCURRENCY="2")
    until(lambda: any("worker 2 serves" in each for each in messages(gateway)), "the second to serve")
    hung = gateway.worker_pids[0]
    os.kill(hung, signal.SIGSTOP)
    began = time.monotonic()
    while hung in gateway.worker_pids:
        assert gateway.get("/x").body == b"ok"
        assert time.monotonic() - began < 15  # HANG_SECONDS are 2 there; SIGABRT and SIGKILL take 2 more
        time.sleep(0.05)  # between two requests
    until(lambda: len(gateway.worker_pids) == 2, "another worker")
    assert any("WORKER TIMEOUT" in each for each in messages(gateway))


def test_a_worker_that_hangs_before_it_serves_is_replaced(start: Start) -> None:
    """A worker's time counts from its first moment: one whose loop blocks while it starts is replaced too."""
    gateway = start(module="tests.system.impatient")
    [old] = gateway.worker_pids
    blocked = gateway.folder / "blocked"
    blocked.touch()
    os.kill(old, signal.SIGKILL)
    until(lambda: any("WORKER TIMEOUT" in each for each in messages(gateway)), "the arbiter to notice")
    blocked.unlink()
    until(gateway.answers, "a worker that serves")


def test_a_log_rotation_kills_nobody(start: Start) -> None:
    """SIGUSR1, which asks other servers to reopen their logs, leaves workers and requests alone."""
    gateway = start()
    before = gateway.worker_pids
    os.killpg(gateway.process.pid, signal.SIGUSR1)
    for _ in range(5):
        assert gateway.get("/x").body == b"ok"
    assert gateway.worker_pids == before


def test_workers_end_with_the_arbiter(start: Start) -> None:
    """When the arbiter is killed, its workers notice and end: no orphans hold the port."""
    gateway = start(WEB_CONCURRENCY="2")
    until(lambda: len(gateway.worker_pids) == 2, "two workers")
    gateway.process.kill()
    until(lambda: processes(gateway) == [], "the workers to end")
    assert is_refused(gateway)


# --- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("to_group", [False, True], ids=["arbiter", "group"])
def test_an_idle_gateway_ends_at_once(number: signal.Signals, to_group: bool, start: Start) -> None:
    """Every polite signal, to the arbiter or to all processes (Ctrl-C): exit 0 promptly, nobody left."""
    gateway = start(WEB_CONCURRENCY="2", SHUTDOWN_TIMEOUT="30")
    with gateway.client() as idle:
        idle.send(GET).reply()
        began = time.monotonic()
        (os.killpg if to_group else os.kill)(gateway.process.pid, number)
        assert gateway.process.wait(10) == 0
        assert time.monotonic() - began < 10  # a third of SHUTDOWN_TIMEOUT: nothing was waited out
        assert idle.is_closed()
    assert processes(gateway) == []
    assert "".join(gateway._errors) == ""
    assert not gateway.log(level="error")


def test_a_request_under_way_is_finished(start: Start, backend: Backend) -> None:
    """SIGTERM with a request at the backend: it is answered with `Connection: close`, new connections are refused,
    what is pipelined behind it is not begun, and the process ends promptly with status 0."""
    held = Held(backend)
    gateway = start(SHUTDOWN_TIMEOUT="30")
    with gateway.client() as idle, gateway.client() as client:
        idle.send(GET.replace(b"/x", b"/health/live")).reply()
        client.send(GET + GET)
        held.reached.acquire()
        gateway.terminate()
        until(lambda: is_refused(gateway), "new connections to be refused")
        assert idle.is_closed()
        assert gateway.process.poll() is None
        held.go.set()
        reply = client.reply()
        assert (reply.status, reply.body, reply["Connection"]) == (200, b"ok", "close")
        assert client.is_closed()
        began = time.monotonic()
        assert gateway.process.wait(10) == 0
        assert time.monotonic() - began < 10
    assert len(backend.requests) == 1
    assert gateway.access(reply["X-Request-ID"])["status"] == 200


def test_a_head_and_an_upload_that_are_arriving(start: Start, backend: Backend) -> None:
    """SIGTERM while a head is half here, and while an upload is: both are finished, answered, and then closed."""
    gateway = start()
    with gateway.client() as head, gateway.client() as upload:
        head.send(GET[:40])
        upload.send(GET[:-2].replace(b"GET", b"PUT") + b"Content-Length: 4\r\n\r\nab")
        assert gateway.get("/x").body == b"ok"  # what was sent before has been read
        gateway.terminate()
        until(lambda: is_refused(gateway), "new connections to be refused")
        for client, rest in ((head, GET[40:]), (upload, b"cd")):
            reply = client.send(rest).reply()
            assert (reply.body, reply["Connection"]) == (b"ok", "close")
    assert gateway.process.wait(10) == 0
    assert backend.requests[-1].endswith(b"\r\n\r\nabcd")


def test_readiness_while_draining(start: Start, backend: Backend) -> None:
    """A connection that is still open is told 503 by /health/ready, liveness stays 200."""
    held = Held(backend)
    gateway = start()
    with gateway.client() as client, gateway.client() as prober:
        client.send(GET)
        held.reached.acquire()
        assert prober.send(HEALTH).reply().status == 200
        prober.send(HEALTH[:10])
        until(lambda: _has_read(gateway, prober), "the gateway to have read the beginning")
        gateway.terminate()
        until(lambda: is_refused(gateway), "the drain to begin")
        reply = prober.send(HEALTH[10:]).reply()
        assert (reply.status, reply.json()["ready"], reply["Connection"]) == (503, False, "close")
        held.go.set()
        assert client.reply().status == 200
    assert gateway.process.wait(10) == 0


def _has_read(gateway: Gateway, client: Client) -> bool:
    """Whether no byte from `client` waits in the kernel, and the loop has turned since."""
    mine = client.socket.getsockname()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == mine:
            return int(fields[4].partition(":")[2], 16) == 0 and gateway.get("/health/live", key=None).status == 200
    return False


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_stream_that_does_not_end_is_cut(version: bytes, start: Start, backend: Backend) -> None:
    """A stream longer than SHUTDOWN_TIMEOUT is cut, visibly, and logged; the exit is in time."""
    ended = threading.Event()

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        connection.more()
        ended.set()

    backend.script = script
    gateway = start(SHUTDOWN_TIMEOUT="1")
    with gateway.client() as client:
        client.send(GET.replace(b"1.1", version))
        head = client._until(b"\r\n\r\n") or b""
        client._exactly(5)
        began = time.monotonic()
        gateway.terminate()
        assert gateway.process.wait(10) == 0
        assert 1 <= time.monotonic() - began < 8
        with pytest.raises(ConnectionResetError):
            while client.socket.recv(65_536):
                pass
    assert ended.wait(10)
    request_id = head.partition(b"X-Request-ID: ")[2].split(b"\r\n")[0].decode()
    assert gateway.access(request_id)["status"] == 200
    assert any("did not end within 1 s" in each for each in messages(gateway))
    assert not gateway.log(level="error")
