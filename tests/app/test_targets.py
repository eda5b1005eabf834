"""Several targets of a service: where requests go when targets fail, are full or slow, and what is never sent twice."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.test_backend_failures import is_refusal, reset
from tests.app.test_relay import AUTH
from tests.backend import OK, Backend, Connection, Script, answer, answer_ok
from tests.gateway import STATIC_KEY, Gateway, Reply, until

SERVICES = 24
Start = Callable[..., Gateway]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start("a=…", NAME="value")` runs a gateway of the test's own in front of these backends."""
    with contextlib.ExitStack() as stack:

        def run(urls: str, **environment: str) -> Gateway:
            return stack.enter_context(Gateway(tmp_path / "g", {"BACKEND_URLS": urls, **environment}))

        yield run


class Service:
    """A service with two targets that no other test uses, at a gateway that all use. BACKEND_TIMEOUT is 2 s."""

    def __init__(self, gateway: Gateway, name: str, one: Backend, two: Backend) -> None:
        self.gateway = gateway
        self.name = name
        self.one = one
        self.two = two

    def scripts(self, one: Script, two: Script = answer_ok) -> None:
        self.one.script, self.two.script = one, two

    @property
    def requests(self) -> list[bytes]:
        return self.one.requests + self.two.requests

    def ask(self, method: str, path: str = "/x", body: bytes = b"") -> Reply:
        return self.gateway.ask(request(method, f"/{self.name}{path}", body), method)

    def states(self) -> list[str]:
        return [target["state"] for target in targets(self.gateway, self.name)]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Service]]:
    with contextlib.ExitStack() as stack:
        pairs = [(stack.enter_context(Backend()), stack.enter_context(Backend())) for _ in range(SERVICES)]
        urls = ",".join(f"s{number}={one.url}|{two.url}" for number, (one, two) in enumerate(pairs))
        environment = {"BACKEND_URLS": urls, "BACKEND_TIMEOUT": "2"}
        environment["VALID_API_KEYS"] = f"{STATIC_KEY}:org_1:enterprise"
        gateway = stack.enter_context(Gateway(tmp_path_factory.mktemp("gateway"), environment))
        yield iter([Service(gateway, f"s{number}", one, two) for number, (one, two) in enumerate(pairs)])


@pytest.fixture
def service(services: Iterator[Service]) -> Service:
    return next(services)


def targets(gateway: Gateway, service: str) -> list[dict[str, Any]]:
    return list(gateway.get("/health", key=None).json()["services"][service])


def request(method: str, path: str = "/x", body: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return f"{method} {path} HTTP/1.1\r\n".encode() + AUTH + length + b"\r\n" + body


def read_and_reset(connection: Connection) -> None:
    connection.read()
    reset(connection.socket)


def read_and_close(connection: Connection) -> None:
    connection.read()


def silent(connection: Connection) -> None:
    connection.read()
    connection.more()


# --- what is sent again, and what is not ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_what_was_not_sent_goes_elsewhere(method: str, service: Service) -> None:
    """Whatever its method and however its body comes, a request that one target refuses is answered by another."""
    service.one.close()
    for number in range(12):
        assert service.ask(method, f"/{number}", b"" if method == "GET" else b"hello").status == 200
    head = request(method, f"/{service.name}/late").removesuffix(b"\r\n") + b"Transfer-Encoding: chunked\r\n\r\n"
    for _ in range(4):  # bodies that are not here yet when the first target refuses
        with service.gateway.client() as client:
            assert client.send(head).send(b"3\r\nabc\r\n0\r\n\r\n").reply().status == 200
    assert len(service.two.requests) == 16


@pytest.mark.parametrize("script", [read_and_reset, read_and_close])
def test_an_idempotent_request_that_died_unanswered(script: Script, service: Service) -> None:
    """It is sent again, once, to another target, body included; every byte as the first time."""
    service.scripts(script)
    one, two = service.one, service.two
    for method in ("GET", "HEAD", "OPTIONS", "TRACE", "DELETE", "PUT"):
        assert service.ask(method, f"/{method}", b"content" if method == "PUT" else b"").status == 200
    for raw in one.requests:
        assert two.requests.count(raw.replace(b":%d" % one.port, b":%d" % two.port)) == 1
    assert len(two.requests) == 6


@pytest.mark.parametrize("method", ["POST", "PATCH", "FROB"])
def test_what_may_not_be_repeated_is_not(method: str, service: Service) -> None:
    """A request of any other method that was sent and not answered is a 502, and was sent once."""
    service.scripts(read_and_reset, read_and_reset)
    for number in range(4):
        assert is_refusal(service.ask(method, f"/{number}", b"hi"), 502)
    assert len(service.requests) == 4


def test_a_large_body_is_not_repeated(service: Service) -> None:
    """What is too large to be held (64 KiB) is sent once, whatever its method."""
    service.scripts(read_and_reset, read_and_reset)
    assert is_refusal(service.ask("PUT", body=bytes(100_000)), 502)
    assert len(service.requests) == 1


@pytest.mark.parametrize("beginning", [b"H", b"HTTP/1.1 103 Early Hints\r\n\r\n", b"nonsense\r\n\r\n"])
def test_an_answer_that_has_begun_is_not_repeated(beginning: bytes, service: Service) -> None:
    """One byte of an answer, or an interim one, and the request is not sent again."""

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(beginning)

    service.scripts(script, script)
    assert is_refusal(service.ask("GET"), 502)
    assert len(service.requests) == 1


def test_a_timeout_goes_elsewhere(service: Service) -> None:
    """An idempotent request that a silent target got is answered by another."""
    service.scripts(silent)
    until(lambda: service.ask("GET").status == 200 and service.one.requests, "the silent one to be asked")
    assert len(service.one.requests) == 1


def test_a_timeout_of_what_may_not_be_repeated(service: Service) -> None:
    """A POST that a silent target got is a 504 and goes nowhere else."""
    service.scripts(silent, silent)
    assert is_refusal(service.ask("POST", body=b"hi"), 504)
    assert len(service.requests) == 1


@pytest.mark.parametrize(("method", "status", "count"), [("GET", 200, 2), ("POST", 502, 1)])
def test_the_race_for_a_kept_connection(method: str, status: int, count: int, start: Start) -> None:
    """The only target closes a kept connection as a request arrives: an idempotent one gets a new connection, once."""

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(OK)
        connection.read()  # asked again, it closes
        backend.script = answer_ok

    with Backend(script) as backend:
        gateway = start(f"a={backend.url}")
        assert gateway.ask(request("GET", "/first")).status == 200
        assert gateway.ask(request(method, "/second", b"" if method == "GET" else b"hi")).status == status
        assert sum(b"/second" in raw for raw in backend.requests) == count


def test_a_repeated_request_has_its_body(start: Start) -> None:
    """What was sent with a body over a kept connection that closed is sent again with all of it."""

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(OK)
        connection.read()
        backend.script = answer_ok

    with Backend(script) as backend:
        gateway = start(f"a={backend.url}")
        assert gateway.ask(request("GET", "/first")).status == 200
        assert gateway.ask(request("PUT", "/second", b"the body")).status == 200
        assert [raw.endswith(b"the body") for raw in backend.requests if b"/second" in raw] == [True, True]


def test_at_most_a_tenth_is_repeated(service: Service) -> None:
    """When every target fails, what they get is the traffic, a tenth of it, and the reserve of ten."""
    service.scripts(read_and_reset, read_and_reset)
    with service.gateway.client() as client:
        for _ in range(200):
            assert is_refusal(client.send(request("GET", f"/{service.name}")).reply(), 502)
    assert 210 <= len(service.requests) <= 200 + 20 + 10


# --- set aside and restored -----------------------------------------------------------------------------------------


def test_set_aside_and_restored(service: Service) -> None:
    """Health and log say so when a target goes and when it is back, by its label and without its address."""
    gateway, label = service.gateway, f"{service.name}/1"

    def told() -> list[str]:
        service.ask("GET")
        return [line["message"].partition(":")[0] for line in gateway.log(service=service.name, target=label)]

    service.scripts(read_and_reset)
    until(lambda: service.ask("GET").status == 200 and service.states() == ["aside", "healthy"], "it to be set aside")
    health = gateway.get("/health", key=None)
    assert health.json()["status"] == "degraded"
    assert str(service.one.port).encode() not in health.body
    service.scripts(answer_ok)
    until(lambda: service.ask("GET").status == 200 and service.states() == ["healthy"] * 2, "it to be restored")
    until(lambda: told() == [f"target {label} set aside", f"target {label} restored"], "the log to say so")


def test_all_targets_away(service: Service) -> None:
    """Requests go to targets that are all set aside: 502 while they are away, 200 as soon as one is back."""
    service.scripts(read_and_close, read_and_close)
    for _ in range(12):
        assert is_refusal(service.ask("POST", body=b"hi"), 502)
    assert not {"healthy"} & set(service.states())
    service.scripts(read_and_close, answer_ok)
    until(lambda: service.ask("POST", body=b"hi").status == 200, "the one that is back")
    assert service.states()[1] == "healthy"


def test_a_slow_target_gets_less(service: Service) -> None:
    """Under load, a target that takes longer has fewer requests, without anyone's help."""

    def slow(connection: Connection) -> None:
        while connection.read():
            time.sleep(0.05)  # what makes it slow
            connection.send(OK)

    def ask() -> None:
        with service.gateway.client() as client:
            for _ in range(40):
                assert client.send(request("GET", f"/{service.name}")).reply().status == 200

    service.scripts(slow)
    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(service.requests) == 240
    assert len(service.one.requests) < 80


# --- full, and late -------------------------------------------------------------------------------------------------


def busy(gateway: Gateway) -> int:
    return sum(target["outstanding"] for target in targets(gateway, "a"))


def is_at_capacity(reply: Reply) -> bool:
    assert reply.json()["error"] == {"code": 503, "message": "backend service at capacity"}
    assert reply["Retry-After"] == "1"
    return reply.status == 503


def test_more_requests_than_connections(start: Start) -> None:
    """Each target has at most BACKEND_MAX_CONNECTIONS; who comes later waits, and gets the first free place."""
    release = threading.Event()
    at_once: list[int] = []
    lock, under_way = threading.Lock(), [0]

    def script(connection: Connection) -> None:
        while connection.read():
            with lock:
                under_way[0] += 1
                at_once.append(under_way[0])
            release.wait(10)
            with lock:
                under_way[0] -= 1
            connection.send(OK)

    with Backend(script) as one, Backend(script) as two:
        gateway = start(f"a={one.url}|{two.url}", BACKEND_MAX_CONNECTIONS="2", BACKEND_CONNECT_TIMEOUT="10")
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(gateway.client()) for _ in range(10)]
            for client in clients:
                client.send(request("POST", body=b"hi"))
            until(lambda: len(at_once) == 4, "every place to be taken")
            assert busy(gateway) == 4
            release.set()
            assert [client.reply().status for client in clients] == [200] * 10
        assert max(at_once) <= 4
        assert one.accepted <= 2
        assert two.accepted <= 2
        until(lambda: busy(gateway) == 0, "every place to be free")


def test_a_wait_for_a_place_ends(start: Start) -> None:
    """BACKEND_CONNECT_TIMEOUT in the queue is a 503 with Retry-After. A client that leaves it leaves nothing behind."""
    with Backend(silent) as backend:
        gateway = start(f"a={backend.url}", BACKEND_MAX_CONNECTIONS="1", BACKEND_CONNECT_TIMEOUT="0.5")
        with gateway.client() as first, gateway.client() as impatient:
            first.send(request("GET"))
            until(lambda: backend.requests, "the only place to be taken")
            impatient.send(request("GET"))
            began = time.monotonic()
            impatient.close()
            assert is_at_capacity(gateway.ask(request("GET")))
            assert 0.4 <= time.monotonic() - began < 10
            first.close()
            until(lambda: busy(gateway) == 0, "the place to be free")
            backend.script = answer_ok
            assert gateway.ask(request("GET")).status == 200


def test_the_queue_is_bounded(start: Start) -> None:
    """Beyond 256 requests that wait, the next is refused at once."""
    with Backend(silent) as backend, contextlib.ExitStack() as stack:
        gateway = start(
            f"a={backend.url}", BACKEND_MAX_CONNECTIONS="1", BACKEND_CONNECT_TIMEOUT="60", BACKEND_TIMEOUT="60"
        )
        for _ in range(257):
            stack.enter_context(gateway.client()).send(request("GET"))
        last = stack.enter_context(gateway.client(5))
        until(lambda: busy(gateway) == 1, "the place to be taken")

        def is_refused() -> bool:
            with gateway.client(0.5) as client, contextlib.suppress(TimeoutError):
                return is_at_capacity(client.send(request("GET")).reply())
            return False

        until(is_refused, "the queue to be full")
        assert is_at_capacity(last.send(request("GET")).reply())


def interim_for_ever(connection: Connection) -> None:
    connection.read()
    for _ in range(15):
        connection.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        time.sleep(0.2)  # often enough for BACKEND_TIMEOUT


def stream(connection: Connection) -> None:
    connection.read()
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    for _ in range(5):
        time.sleep(0.3)  # together longer than the deadline
        connection.send(b"x")


def test_the_deadline(start: Start) -> None:
    """No head within BACKEND_DEADLINE is a 504, also for 1xx answers that keep BACKEND_TIMEOUT happy, and in the
    queue. It does not count the time that a client takes for its body, and is over once the head is here."""
    with Backend(silent) as a, Backend(interim_for_ever) as b, Backend() as c, Backend(stream) as d:
        gateway = start(
            f"a={a.url},b={b.url},c={c.url},d={d.url}",
            BACKEND_DEADLINE="0.8",
            BACKEND_TIMEOUT="10",
            BACKEND_MAX_CONNECTIONS="1",
        )
        for path in ("/a", "/b"):
            began = time.monotonic()
            assert is_refusal(gateway.ask(request("GET", path)), 504)
            assert 0.7 <= time.monotonic() - began < 8
        with gateway.client() as first, gateway.client() as queued, gateway.client() as uploading:
            uploading.send(request("POST", "/c", b"hello")[:-3])
            first.send(request("GET", "/a"))
            until(lambda: len(a.requests) == 2, "the only place to be taken")
            queued.send(request("GET", "/a"))
            assert is_refusal(first.reply(), 504)
            assert is_refusal(queued.reply(), 504)
            assert uploading.send(b"llo").reply().status == 200
        reply = gateway.ask(request("GET", "/d"))
        assert (reply.body, reply.is_whole) == (b"xxxxx", True)


# --- probes ---------------------------------------------------------------------------------------------------------


def test_probes(start: Start) -> None:
    """A target whose health path fails gets no requests until it is good again, though it would answer them."""
    is_ill = threading.Event()

    def script(connection: Connection) -> None:
        while connection.read():
            is_probe = b"GET /healthz?full=1 HTTP/1.1" in connection.head
            connection.send(b"HTTP/1.1 503 Ill\r\nContent-Length: 0\r\n\r\n" if is_probe and is_ill.is_set() else OK)

    found = b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"
    with Backend(script) as one, Backend(answer(found)) as two:
        gateway = start(f"a={one.url}/base|{two.url}", BACKEND_HEALTH_PATH="/healthz?full=1")

        def states() -> list[str]:
            return [target["state"] for target in targets(gateway, "a")]

        until(lambda: one.requests and two.requests, "both to be probed")
        assert b"Authorization" not in one.requests[0]
        assert states() == ["healthy", "healthy"]
        is_ill.set()
        until(lambda: states() == ["unhealthy", "healthy"], "the probes to notice")
        one.requests.clear()
        assert [gateway.ask(request("GET")).status for _ in range(20)] == [302] * 20
        assert not [raw for raw in one.requests if b"/base/x" in raw]
        is_ill.clear()
        until(lambda: states() == ["healthy", "healthy"], "the probes to notice")
        until(lambda: gateway.ask(request("GET")).status == 200, "a request to go there")
        assert b"GET /base/x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % one.port in one.requests[-1]
        told = ["target a/1 set aside: its health path answered 503", "target a/1 restored"]
        until(lambda: [line["message"] for line in gateway.log(target="a/1")] == told, "the log to say so")
