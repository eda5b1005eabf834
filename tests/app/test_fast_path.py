"""The fast path against the way in a task: the same answers byte for byte, and a hand-over that loses nothing.

A request that follows another one in a task (here: /health before it, pipelined) is served in that task: the slow way.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.admission import Admission
from app.context import Context
from app.core.keys import credential
from app.core.limits.limiter import Limiter
from app.core.model import Credential, Limits, Organization, RedisAddress, Verdict
from app.core.redis.link import RedisLink
from app.message import Message
from tests.app.test_backend_failures import reset
from tests.app.test_relay import AUTH
from tests.backend import OK, Backend, Connection
from tests.core.clients import PATIENT_SECONDS
from tests.eventually import eventually
from tests.gateway import STATIC_KEY, Gateway, until
from tests.tenants import add_key, add_organization, sql
from tools.embedded import RedisServer

HEALTH = b"GET /health/live HTTP/1.1\r\nHost: g\r\n\r\n"
Act = Callable[[Connection], None]


class Stage:
    """What the backend does with each request from now on, on kept connections too; `once`: with the next ones."""

    def __init__(self, backend: Backend) -> None:
        self.act: Act = lambda connection: connection.send(OK)
        self._once: list[Act] = []
        backend.script = self._run
        self.backend = backend

    def once(self, *acts: Act) -> None:
        self._once += acts

    def _run(self, connection: Connection) -> None:
        while connection.read():
            (self._once.pop(0) if self._once else self.act)(connection)


def says(*pieces: bytes) -> Act:
    """Each piece in a write of its own, the next when the one before has arrived for certain."""

    def act(connection: Connection) -> None:
        for number, piece in enumerate(pieces):
            if number:
                threading.Event().wait(0.05)  # so that the pieces arrive as pieces
            connection.send(piece)

    return act


def closes(connection: Connection) -> None:
    connection.socket.shutdown(socket.SHUT_RDWR)


def says_and_closes(data: bytes) -> Act:
    def act(connection: Connection) -> None:
        connection.send(data)
        closes(connection)

    return act


@pytest.fixture
def stage(gateway: Gateway, backend: Backend) -> Iterator[Stage]:
    """One kept connection to the backend is there at the beginning, and nothing is left outstanding at the end."""
    made = Stage(backend)
    until(lambda: gateway.get("/warm").status == 200, "a kept connection")
    yield made
    until(lambda: outstanding(gateway) == [0], "the last request to be over")


def outstanding(gateway: Gateway) -> list[int]:
    services = gateway.get("/health", key=None).json()["services"]
    return [target["outstanding"] for target in services["api"]]


def only_line(gateway: Gateway, **fields: str) -> dict[str, Any]:
    """The access line of one request, and that it is one; warnings bear its id too."""

    def lines() -> list[dict[str, Any]]:
        return [line for line in gateway.log(**fields) if "duration_ms" in line]

    (line,) = until(lines, f"the line of {fields}")
    return dict(line)


def request(line: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    return line + b"\r\n" + AUTH + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def raw(gateway: Gateway, data: bytes, *, is_slow: bool) -> tuple[bytes, dict[str, Any]]:
    """Everything that is answered until the end of the connection, and the log line, without what differs each time."""
    with gateway.client() as client:
        client.send(HEALTH + data if is_slow else data)
        if is_slow:
            assert client.reply().status == 200
        got = client.rest()
    found = re.search(rb"(?i)x-request-id: (\S+)", got)
    assert found is not None, got
    line = only_line(gateway, request_id=found[1].decode())
    assert (line["backend_ms"] or 0) <= line["duration_ms"]
    seen = {**line, "has_asked_backend": line["backend_ms"] is not None}
    for name in ("timestamp", "duration_ms", "backend_ms", "request_id"):
        del seen[name]
    got = re.sub(rb"(?i)(x-request-id|date|(?:x-)?ratelimit[a-z-]*): [^\r]*", rb"\1: -", got)
    return re.sub(rb'"(request_id|timestamp)":"[^"]*"', rb'"\1":"-"', got), seen


CLOSE = b"Connection: close"
GET = request(b"GET /x?y=1 HTTP/1.1", CLOSE)
HEAD = request(b"HEAD /x HTTP/1.1", CLOSE)
POST = request(b"POST /x HTTP/1.1", CLOSE, b"Content-Length: 5", body=b"hello")
CHUNKS = request(b"POST /x HTTP/1.1", CLOSE, b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\nX: 1\r\n\r\n")
OLD = request(b"GET /x HTTP/1.0")
LINES = b"HTTP/1.1 200 OK\r\nServer: s\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-RateLimit-Limit: 1\r\nVary: a\r\n"
PLAIN = LINES + b"Content-Length: 2\r\n\r\nok"
CHUNKED = LINES + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
TRAILERS = LINES + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n"
SAME: dict[str, tuple[bytes, Act]] = {
    "plain": (GET, says(PLAIN)),
    "cross-origin": (GET, says(PLAIN.replace(b"Vary: a", b"Access-Control-Allow-Origin: *"))),
    "empty": (GET, says(LINES + b"Content-Length: 0\r\n\r\n")),
    "chunked": (GET, says(CHUNKED)),
    "trailers": (GET, says(TRAILERS)),
    "until the end": (GET, says_and_closes(LINES + b"\r\nok")),
    "farewell": (GET, says(PLAIN.replace(b"Vary: a", b"Connection: close, Server"))),
    "204": (GET, says(b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n")),
    "304": (GET, says(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n")),
    "interim": (GET, says(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + PLAIN)),
    "backend of 1.0": (GET, says(PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"))),
    "garbage": (GET, says(b"garbage\r\n\r\n")),
    "too much": (GET, says(PLAIN + PLAIN)),
    "closed unanswered": (POST, closes),
    "closed in its head": (GET, says_and_closes(b"HTTP/1.1 2")),
    "head": (HEAD, says(LINES + b"Content-Length: 2\r\n\r\n")),
    "head, chunked": (HEAD, says(LINES + b"Transfer-Encoding: chunked\r\n\r\n")),
    "post": (POST, says(PLAIN)),
    "post in chunks": (CHUNKS, says(PLAIN)),
    "client of 1.0": (OLD, says(PLAIN)),
    "client of 1.0, chunked": (OLD, says(CHUNKED)),
    "client of 1.0, interim": (OLD, says(b"HTTP/1.1 103 Early Hints\r\n\r\n" + PLAIN)),
    "no key": (GET.replace(b"Authorization", b"Unauthorized"), says(PLAIN)),
    "a wrong key": (GET.replace(b"sk_test_abc123", b"sk_test_wrong"), says(PLAIN)),
    "no known scheme": (GET.replace(b"Bearer", b"Basic"), says(PLAIN)),
    "star": (request(b"OPTIONS * HTTP/1.1", CLOSE), says(PLAIN)),
}


@pytest.mark.parametrize(("data", "act"), SAME.values(), ids=SAME)
def test_both_ways_answer_the_same(gateway: Gateway, stage: Stage, data: bytes, act: Act) -> None:
    """Whatever the backend does, fast (twice: new and known lines) and slow give the same bytes and log line."""
    answers = []
    for is_slow in (False, True, False):
        stage.act = says(OK)
        until(lambda: gateway.get("/warm").status == 200, "a kept connection")
        stage.act = act
        answers.append(raw(gateway, data, is_slow=is_slow))
    assert answers[0] == answers[1] == answers[2]


def test_the_backend_gets_the_same(gateway: Gateway, stage: Stage) -> None:
    """Both ways send the backend the same head and body, but for the request's id."""
    for data in (GET, HEAD, POST, CHUNKS, OLD):
        for is_slow in (False, True):
            raw(gateway, data, is_slow=is_slow)
        fast, slow = (re.sub(rb"(?i)x-request-id: [^\r]*", b"", each) for each in stage.backend.requests[-2:])
        assert fast == slow


HANDED: dict[str, tuple[tuple[Act, ...], bytes]] = {
    "in two pieces": ((says(PLAIN[:-1], PLAIN[-1:]),), b"ok"),
    "a head in two pieces": ((says(PLAIN[:20], PLAIN[20:]),), b"ok"),
    "trailers": ((says(TRAILERS),), b"ok"),
    "closed unanswered": ((closes,), b"ok"),
    "late": ((says(b"", PLAIN),), b"ok"),
}


@pytest.mark.parametrize(("acts", "body"), HANDED.values(), ids=HANDED)
def test_what_is_out_of_the_ordinary_is_handed_over(
    gateway: Gateway, stage: Stage, acts: tuple[Act, ...], body: bytes
) -> None:
    """At each point at which the fast path ends, the answer is right, logged once, and the connection goes on."""
    with gateway.client() as client:
        for _ in range(2):
            stage.once(*acts)
            reply = client.send(request(b"GET /x HTTP/1.1")).reply()
            assert (reply.status, reply.body, reply.is_whole) == (200, body, True)
            line = only_line(gateway, request_id=reply["X-Request-Id"])
            assert (line["status"], line["bytes"]) == (200, 2)
            assert 0 < line["backend_ms"] <= line["duration_ms"]


def test_the_backends_time_is_the_backends(gateway: Gateway, stage: Stage) -> None:
    """`backend_ms` covers the time until the head of the answer, on either way."""
    stage.act = says(b"", b"", b"", PLAIN)
    for prefix in (b"", HEALTH):
        with gateway.client() as client:
            client.send(prefix + request(b"GET /x HTTP/1.1"))
            reply = [client.reply() for _ in range(2 if prefix else 1)][-1]
            line = gateway.access(reply["X-Request-Id"])
            assert 140 <= line["backend_ms"] <= line["duration_ms"]


def test_no_kept_connection(gateway: Gateway, stage: Stage) -> None:
    """Where all kept connections have ended, the request gets a new one."""
    before = stage.backend.accepted
    stage.backend.drop_idle()
    reply = gateway.get("/x")
    assert (reply.status, reply.body) == (200, b"ok")
    assert stage.backend.accepted == before + 1
    assert gateway.access(reply["X-Request-Id"])["backend_ms"] > 0


def path_of(connection: Connection) -> bytes:
    return connection.head.split(b" ", 2)[1]


def echo(connection: Connection, padding: bytes = b"") -> None:
    """Answers with the path, and nothing for HEAD."""
    body = path_of(connection) + padding
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    connection.send(head if connection.head.startswith(b"HEAD") else head + body)


def test_a_client_that_reads_late_gets_everything(gateway: Gateway, stage: Stage) -> None:
    """A hundred answers of 200 kB to a client that reads late: all come, whole and in order, each logged."""
    padding = b"x" * 200_000
    stage.act = lambda connection: echo(connection, padding)
    with gateway.client() as client:
        client.send(b"".join(request(b"GET /late/%d HTTP/1.1" % number) for number in range(100)))
        until(
            lambda: [line for line in gateway.log() if str(line.get("path")).startswith("/late/")], "the first answers"
        )
        replies = [client.reply() for _ in range(100)]
    assert [reply.body == b"/late/%d" % number + padding for number, reply in enumerate(replies)] == [True] * 100
    for number in range(100):
        line = only_line(gateway, path=f"/late/{number}")
        assert (line["status"], line["bytes"]) == (200, len(replies[number].body))


KINDS: list[Callable[[bytes], tuple[str, bytes]]] = [
    lambda path: ("GET", request(b"GET %b HTTP/1.1" % path)),
    lambda path: ("GET", request(b"GET %b HTTP/1.1" % path)),
    lambda path: ("HEAD", request(b"HEAD %b HTTP/1.1" % path)),
    lambda path: ("POST", request(b"POST %b HTTP/1.1" % path, b"Content-Length: 2", body=b"hi")),
    lambda path: (
        "POST",
        request(b"POST %b HTTP/1.1" % path, b"Transfer-Encoding: chunked", body=b"2\r\nhi\r\n0\r\n\r\n"),
    ),
    lambda path: ("GET", request(b"GET %b HTTP/1.1" % path).replace(b"Bearer", b"Basic")),
    lambda path: ("GET", HEALTH),
]


@pytest.mark.parametrize("seed", range(4))
def test_pipelined_mixes_keep_their_order(gateway: Gateway, stage: Stage, seed: int) -> None:
    """Fast and slow requests of every kind in one row, cut anywhere: the answers come in the order of the requests."""
    chance = random.Random(seed)
    stage.act = echo
    wanted = [(chance.randrange(len(KINDS)), b"/%d/%d" % (seed, number)) for number in range(60)]
    asked = [KINDS[kind](path) for kind, path in wanted]
    data = b"".join(text for _, text in asked)
    with gateway.client() as client:
        while data:
            count = chance.choice([1, 100, 1_000, 5_000])
            client.send(data[:count])
            data = data[count:]
        replies = [client.reply(method) for method, _ in asked]
    for (kind, path), (method, text), reply in zip(wanted, asked, replies, strict=True):
        if text is HEALTH:
            assert reply.json()["alive"]
        elif kind == 5:
            assert reply.status == 401
        else:
            assert (reply.status, reply.body) == (200, b"" if method == "HEAD" else path)


@pytest.mark.parametrize(
    "leave", [lambda client: client.close(), lambda client: reset(client.socket)], ids=["FIN", "RST"]
)
def test_who_leaves_while_the_backend_works_stops_it(
    gateway: Gateway, stage: Stage, leave: Callable[[Any], None]
) -> None:
    """The backend's connection is ended at once, and the request is logged once, as 499 with the backend's time."""
    begun, ended = threading.Event(), threading.Event()

    def work(connection: Connection) -> None:
        begun.set()
        connection.more()
        ended.set()

    stage.act = work
    path = f"/left/{random.randrange(10**9)}"
    client = gateway.client().send(request(b"GET %b HTTP/1.1" % path.encode()))
    assert begun.wait(10)
    leave(client)
    assert ended.wait(10)
    line = only_line(gateway, path=path)
    assert line["status"] == 499
    assert 0 < line["backend_ms"] <= line["duration_ms"]


def test_who_leaves_while_the_end_is_awaited_is_let_go(gateway: Gateway, stage: Stage) -> None:
    """After a last answer a client may go as it likes, with bytes of its own unread: nothing breaks over it."""
    for data in (GET, GET.replace(b"Authorization", b"Unauthorized")):
        client = gateway.client().send(data + b"GET / HTTP/1.1\r\n")
        assert client.rest()  # the gateway has sent its end, and lingers
        reset(client.socket)
    assert gateway.access(gateway.get("/x")["X-Request-Id"])["status"] == 200
    assert not [line for line in gateway.log() if "connection_lost" in str(line.get("exception"))]


def test_a_key_that_is_looked_up_and_a_redis_that_is_silent(
    tmp_path: Path, database_url: str, own_redis: RedisServer
) -> None:
    """A key not met before goes through the database, in its order; who leaves while Redis is silent is logged 499."""
    issued = credential.mint("test")
    key_id = add_key(database_url, 1, add_organization(database_url))
    digest = credential.digest(issued).hex()
    sql(database_url, "UPDATE api_keys SET key_digest = %s WHERE id = %s", digest, key_id)
    with Backend() as backend:
        stage = Stage(backend)
        stage.act = echo
        environment = {
            "BACKEND_URLS": f"api={backend.url}",
            "DATABASE_URL": database_url,
            "REDIS_URL": own_redis.url,
            "VALID_API_KEYS": f"{STATIC_KEY}:org_1:enterprise",
        }
        with Gateway(tmp_path, environment) as gateway:
            until(lambda: not gateway.get("/warm").all("X-RateLimit-Mode"), "Redis to decide")
            keys = [STATIC_KEY, issued, credential.mint("test"), STATIC_KEY, issued]
            asked = [request(b"GET /%d HTTP/1.1" % number) for number in range(len(keys))]
            with gateway.client() as client:
                for key, text in zip(keys, asked, strict=True):
                    client.send(text.replace(STATIC_KEY.encode(), key.encode()))
                replies = [client.reply() for _ in keys]
            assert [reply.status for reply in replies] == [200, 200, 403, 200, 200]
            assert [replies[number].body for number in (0, 1, 3, 4)] == [b"/0", b"/1", b"/3", b"/4"]
            own_redis.freeze()
            try:
                client = gateway.client()
                client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # the request leaves with the end
                client.send(request(b"GET /gone HTTP/1.1")).close()
                line = only_line(gateway, path="/gone")
            finally:
                own_redis.thaw()
            assert (line["status"], line["backend_ms"]) == (499, None)
            assert not any(each.startswith(b"GET /gone") for each in backend.requests)
            assert gateway.get("/x").status == 200
            assert outstanding(gateway) == [0]
            assert only_line(gateway, path="/gone") == line


class Uses:
    """Notes for whom a use was noted."""

    def __init__(self) -> None:
        self.noted: list[Credential] = []

    def note(self, whose: Credential, at: float) -> None:
        self.noted.append(whose)


async def test_who_leaves_before_redis_is_asked_is_charged_nothing(redis_url: str, redis_server: RedisServer) -> None:
    """Cancelled in the turn in which it was begun, a request is never sent; cancelled later it has counted, untold."""
    whose = Credential("k", Organization("leaving", "basic", Limits(10, 100, 0)))
    told: list[Verdict | None] = []
    async with (
        RedisLink(RedisAddress("127.0.0.1", redis_server.port), name="test") as link,
        Limiter(link, node="test", workers=1, deadline_seconds=PATIENT_SECONDS) as limiter,
    ):
        await eventually(lambda: limiter.is_exact)
        context = Context(Message(), "", SimpleNamespace(limiter=limiter, uses=Uses()))

        def begun() -> Admission:
            admission = Admission(context, whose)
            assert admission.verdict is None
            admission.begin(told.append)
            return admission

        begun().cancel()
        await eventually(lambda: not limiter._asking.waiting._groups)
        assert limiter.requests == 0
        late = begun()
        while not limiter.requests:  # noqa: ASYNC110 - it is sent in one of these turns; no answer is read in the same
            await asyncio.sleep(0)
        late.cancel()
        begun()
        await eventually(lambda: told)
    (verdict,) = told
    assert verdict is not None
    assert verdict.remaining_minute == 8
