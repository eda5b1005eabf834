"""How long a connection waits for its client, by a clock that the tests move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sanic import HTTPResponse, Sanic, text

from app.client_connection import HEAD_SECONDS, IDLE_SECONDS, LINGER_SECONDS, WRITE_SECONDS
from app.errors import EnvelopeErrorHandler
from app.request import GatewayRequest
from tests.app.wire import SanicDoor, sanic_app

BODY_SECONDS, BODY_SECONDS_IN_ALL = 30.0, 600.0
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
LONG = 10_000.0


def post(length: int, body: bytes = b"", target: bytes = b"/") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (target, length, body)


class Script:
    """What the handlers of a test wait for."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.lines: list[dict[str, Any]] = []


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def app(script: Script) -> AsyncIterator[Sanic[Any, Any]]:
    """`/` answers, reading nothing; `/read` reads the body; `/stream` answers in two parts, the last on `go`."""
    app = sanic_app("deadlines", lambda **fields: script.lines.append(fields))
    app.error_handler = EnvelopeErrorHandler()
    app.ctx.settings = Untrusting()

    @app.route("/", methods=["GET", "POST"], ignore_body=True)
    async def at_once(request: GatewayRequest) -> HTTPResponse:
        return text("ok")

    @app.route("/slow", methods=["GET", "POST"])
    async def slow(request: GatewayRequest) -> HTTPResponse:
        await script.go.wait()
        return text("slow")

    @app.route("/read", methods=["POST"])
    async def read(request: GatewayRequest) -> HTTPResponse:
        return text(request.body.decode())

    @app.route("/stream", methods=["GET", "POST"], stream=True)
    async def stream(request: GatewayRequest) -> None:
        response = await request.respond(content_type="text/plain")
        await response.send("first")
        await script.go.wait()
        await response.send("last")

    await app._startup()
    yield app
    Sanic._app_registry.pop("deadlines", None)


class Untrusting:
    """Settings as far as the door and `identify` look at them."""

    def __init__(self) -> None:
        self.trusted_proxies = self
        self.upload_idle_seconds = BODY_SECONDS
        self.upload_seconds = BODY_SECONDS_IN_ALL

    def trusts(self, ip: str) -> bool:
        return False


def status(door: SanicDoor) -> int:
    return int(door.wire.written.split(b" ")[1])


async def test_a_silent_connection_is_closed_without_a_word(app: Sanic[Any, Any]) -> None:
    """Who connects and says nothing is let go after IDLE_SECONDS, not before."""
    door = await SanicDoor(app).settle()
    await door.after(IDLE_SECONDS - 0.1)
    assert not door.wire.is_closing()
    await door.after(0.2)
    assert (door.wire.is_closing(), door.wire.written) == (True, b"")


async def test_empty_lines_do_not_keep_a_connection(app: Sanic[Any, Any]) -> None:
    """Empty lines are no sign of life."""
    door = await SanicDoor(app).settle()
    for _ in range(10):
        await door.after(IDLE_SECONDS / 10 - 0.1)
        door.feed(b"\r\n")
    await door.after(2)
    assert door.wire.is_closing()


@pytest.mark.parametrize("drip", [b"GET /" + b"x" * 99, GET[:-2] + b"X: " + b"y" * 99])
async def test_a_head_has_to_be_whole_in_time(drip: bytes, app: Sanic[Any, Any]) -> None:
    """A head that trickles in is answered with 408 after HEAD_SECONDS, counted from its first byte."""
    door = await SanicDoor(app).settle()
    for i in range(14):
        door.feed(drip[i : i + 1] if i < 13 else drip[13:])
        await door.after(1)
        assert door.wire.written == b""
    await door.after(HEAD_SECONDS - 14)
    assert status(door) == 408
    assert b"Connection: close\r\n" in door.wire.written


async def test_a_request_that_was_begun_after_another_has_its_own_time(app: Sanic[Any, Any], script: Script) -> None:
    """On a connection that is kept, the 408 is the new request's: its log line does not name the old one."""
    door = await SanicDoor(app).feed(GET + b"DELE").settle()
    await door.after(HEAD_SECONDS)
    assert door.wire.written.count(b"HTTP/1.1 408") == 1
    assert [(line["status"], line["path"]) for line in script.lines] == [(200, "/"), (408, "")]


async def test_a_body_has_to_keep_coming(app: Sanic[Any, Any]) -> None:
    """Pieces within BODY_SECONDS of each other are waited for; then it is 408."""
    door = await SanicDoor(app).feed(post(9, b"a", b"/read")).settle()
    for _ in range(4):
        await door.after(BODY_SECONDS - 1)
        door.feed(b"b")
    await door.after(BODY_SECONDS - 0.1)
    assert door.wire.written == b""
    await door.after(0.2)
    assert status(door) == 408


async def test_a_body_has_to_be_whole_in_time(app: Sanic[Any, Any]) -> None:
    """A byte every few seconds is served for as long as an upload may take, counted from its head; then it is 408."""
    door = await SanicDoor(app).feed(post(1_000, b"a", b"/read")).settle()
    for _ in range(29):
        await door.after(20)
        door.feed(b"b")
    await door.after(19)
    assert door.wire.written == b""
    await door.after(2)
    assert status(door) == 408


async def test_each_body_has_its_own_time(app: Sanic[Any, Any]) -> None:
    """What one upload took is not taken from the next on the same connection."""
    door = SanicDoor(app)
    for _ in range(2):
        await door.feed(post(30, b"a", b"/read")).settle()
        for _ in range(29):
            await door.after(20)
            door.feed(b"b")
        await door.settle()
    assert door.wire.written.count(b"HTTP/1.1 200") == 2


async def test_a_slow_handler_is_not_cut_after_a_body_in_two_pieces(app: Sanic[Any, Any], script: Script) -> None:
    """The time for the body ends with the body: how long the answer takes is another matter."""
    door = await SanicDoor(app).feed(post(4, b"ab", b"/slow")).settle()
    await door.feed(b"cd").settle()
    await door.after(LONG)
    script.go.set()
    await door.settle()
    assert status(door) == 200


async def test_a_slow_handler_is_not_cut_on_a_pipelined_request(app: Sanic[Any, Any], script: Script) -> None:
    """A request that came along with another may take as long as any."""
    door = await SanicDoor(app).feed(GET + GET.replace(b" / ", b" /slow ")).settle()
    await door.after(LONG)
    script.go.set()
    await door.settle()
    assert door.wire.written.count(b"HTTP/1.1 200") == 2


async def test_an_answer_that_has_begun_waits_for_no_body(app: Sanic[Any, Any], script: Script) -> None:
    """Who is being answered may be silent in the middle of its upload: two-way streams are as slow as they like."""
    door = await SanicDoor(app).feed(post(100, b"ab", b"/stream")).settle()
    assert b"first" in door.wire.written
    await door.after(LONG)
    script.go.set()
    await door.settle()
    assert door.wire.written.endswith(b"4\r\nlast\r\n0\r\n\r\n")


async def test_a_small_unread_body_is_drained_and_the_connection_kept(app: Sanic[Any, Any]) -> None:
    """The next request after a body that nobody read is answered."""
    door = await SanicDoor(app).feed(post(5, b"he")).settle()
    await door.feed(b"llo" + GET).settle()
    assert door.wire.written.count(b"HTTP/1.1 200") == 2
    assert not door.wire.is_closing()


async def test_draining_a_body_has_one_deadline(app: Sanic[Any, Any]) -> None:
    """A client that trickles its unwanted body is waited for once, not once a byte."""
    door = await SanicDoor(app).feed(post(100)).settle()
    for _ in range(4):
        await door.after(LINGER_SECONDS / 4)
        door.feed(b"x")
        await door.settle()
    await door.after(0.1)
    assert door.wire.is_closing()


async def test_a_large_unread_body_ends_the_connection_after_the_answer(app: Sanic[Any, Any]) -> None:
    """The answer says so, the sending side ends, what still comes is thrown away for LINGER_SECONDS."""
    door = await SanicDoor(app).feed(post(1_000_000, b"x" * 1_000)).settle()
    assert status(door) == 200
    assert b"Connection: close\r\n" in door.wire.written
    assert (door.wire.has_sent_eof, door.wire.is_closing()) == (True, False)
    for _ in range(20):
        await door.feed(b"x" * 30_000 + GET).settle()
    await door.after(LINGER_SECONDS)
    assert door.wire.is_closing()
    assert door.wire.written.count(b"HTTP/1.1") == 1


async def test_requests_after_the_last_one_are_not_in_the_way_of_its_answer(app: Sanic[Any, Any]) -> None:
    """After `Connection: close` nothing more is served, and the close still waits for the client to read."""
    last = GET.replace(b"Host", b"Connection: close\r\nHost")
    door = await SanicDoor(app).feed(last + GET * 20).settle()
    assert door.wire.written.count(b"HTTP/1.1 200") == 1
    assert (door.wire.has_sent_eof, door.wire.is_closing()) == (True, False)
    door.eof_received()
    await door.settle()
    assert door.wire.is_closing()


async def test_a_client_that_reads_nothing_is_given_up(app: Sanic[Any, Any]) -> None:
    """While the buffer shrinks there is time; when it does not, the connection ends."""
    door = await SanicDoor(app).feed(GET.replace(b" / ", b" /stream ")).settle()
    door.wire.unread_bytes = 100_000
    door.pause_writing()
    for _ in range(5):
        await door.after(WRITE_SECONDS)
        door.wire.unread_bytes -= 10_000
    assert not door.wire.was_aborted
    await door.after(WRITE_SECONDS)
    await door.after(WRITE_SECONDS)
    assert door.wire.was_aborted


async def test_a_connection_whose_answer_was_read_late_is_still_closed_when_idle(app: Sanic[Any, Any]) -> None:
    """The end of back-pressure begins the idle time; it does not abolish it."""
    door = await SanicDoor(app).feed(GET).settle()
    door.pause_writing()
    door.resume_writing()
    await door.after(IDLE_SECONDS - 0.1)
    assert not door.wire.is_closing()
    await door.after(0.2)
    assert door.wire.is_closing()


async def test_the_drain_ends_what_is_idle_and_lets_the_rest_finish(app: Sanic[Any, Any], script: Script) -> None:
    """`close_if_idle` closes an idle connection at once; a busy one after its answer, which says so."""
    idle = await SanicDoor(app).feed(GET).settle()
    busy = await SanicDoor(app).feed(GET.replace(b" / ", b" /slow ")).settle()
    begun = await SanicDoor(app).feed(GET[:9]).settle()
    for door in (idle, busy, begun):
        door.close_if_idle()
        await door.settle()
    assert [door.wire.is_closing() for door in (idle, busy, begun)] == [True, False, False]
    script.go.set()
    await begun.feed(GET[9:]).settle()
    await busy.settle()
    for door in (busy, begun):
        assert b"Connection: close\r\n" in door.wire.written
        assert door.wire.is_closing()


async def test_the_drain_waits_for_the_rest_of_a_body_that_nobody_wanted(app: Sanic[Any, Any]) -> None:
    """A client that is answered and still sends is not idle: a close would be a reset, and cost it the answer."""
    door = await SanicDoor(app).feed(post(5, b"he")).settle()
    assert status(door) == 200
    assert not door.close_if_idle()
    await door.feed(b"llo").settle()
    assert not door.wire.is_closing()
    assert door.close_if_idle()
    await door.settle()
    assert door.wire.is_closing()


async def test_a_hang_up_while_a_request_is_idle_leaves_nothing_behind(app: Sanic[Any, Any]) -> None:
    """After the end of the stream the connection and its task are gone."""
    door = await SanicDoor(app).feed(GET + b"GET /hal").settle()
    door.eof_received()
    await door.settle()
    assert door.wire.is_closing()
    assert door.handler is None
    assert door not in door.connections
