"""Sanic's ordinary features on our door: whoever adds an endpoint to the gateway finds the Sanic of the books."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from loguru import logger
from sanic import HTTPResponse, Sanic, empty, html, redirect, text
from sanic import json as json_answer
from sanic.exceptions import NotFound
from sanic.response import BaseHTTPResponse

from app.door import DoorProtocol
from app.errors import EnvelopeErrorHandler
from app.middleware import identify, stamp
from app.request import GatewayRequest
from tests.app.wire import sanic_app
from tests.gateway import Reply


class Untrusting:
    """Settings as far as `identify` looks at them: nobody is believed."""

    def __init__(self) -> None:
        self.trusted_proxies = self
        self.upload_idle_seconds = self.upload_seconds = 30.0

    def trusts(self, ip: str) -> bool:
        return False


class Teapot(Exception):
    """What one of the handlers raises."""


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What was logged."""
    messages: list[str] = []
    number = logger.add(lambda message: messages.append(str(message)), level="WARNING", format="{message} {extra}")
    yield messages
    logger.remove(number)


@pytest.fixture
async def port(said: list[str]) -> AsyncIterator[int]:
    app = sanic_app("features")
    app.error_handler = EnvelopeErrorHandler()
    app.ctx.settings = Untrusting()
    app.ctx.events = []
    add_routes(app)
    add_hooks(app)
    listener = socket.create_server(("127.0.0.1", 0))
    server: Any = await app.create_server(sock=listener, protocol=DoorProtocol, return_asyncio_server=True)
    await server.startup()
    await server.before_start()
    await server.after_start()
    yield listener.getsockname()[1]
    await server.before_stop()
    server.server.close()
    for connection in list(server.connections):
        connection.abort()
    await server.after_stop()
    assert app.ctx.events == ["before start", "after start", "before stop", "after stop"]
    Sanic._app_registry.pop("features", None)


def add_hooks(app: Sanic[Any, Any]) -> None:
    app.register_middleware(identify, "request")

    @app.on_request
    async def stop_some(request: GatewayRequest) -> HTTPResponse | None:
        return text("stopped", 418) if request.path == "/stopped" else None

    async def sign(request: GatewayRequest, response: BaseHTTPResponse) -> None:
        response.headers["X-Signed"] = "yes"

    app.register_middleware(sign, "response")
    app.register_middleware(stamp, "response")

    @app.exception(Teapot)
    async def excuse(request: GatewayRequest, error: Teapot) -> HTTPResponse:
        return text(f"excused: {error}", 418)

    for event in ("before_server_start", "after_server_start", "before_server_stop", "after_server_stop"):
        app.register_listener(note(event.replace("_server_", " ")), event)


def note(event: str) -> Any:
    async def listener(app: Sanic[Any, Any]) -> None:
        app.ctx.events.append(event)

    return listener


def add_routes(app: Sanic[Any, Any]) -> None:
    @app.post("/json")
    async def as_json(request: GatewayRequest) -> HTTPResponse:
        return json_answer({"got": request.json, "args": request.args, "token": request.token})

    @app.post("/form")
    async def as_form(request: GatewayRequest) -> HTTPResponse:
        form = request.form
        assert form is not None
        return text(f"{form.get('a')} {request.cookies.get('c')} {request.headers['x-b']}")

    @app.get("/named/<number:int>")
    async def named(request: GatewayRequest, number: int) -> HTTPResponse:
        return text(f"{number + 1} {request.url} {request.query_string} {request.host}")

    @app.get("/stream")
    async def stream(request: GatewayRequest) -> None:
        response = await request.respond(content_type="text/plain")
        await response.send("one,")
        await response.send("two")
        await response.eof()

    @app.post("/upload", stream=True)
    async def upload(request: GatewayRequest) -> HTTPResponse:
        pieces = [piece async for piece in request.exchange]
        return text(str(sum(len(piece) for piece in pieces)))

    @app.get("/known-length")
    async def known_length(request: GatewayRequest) -> None:
        response = await request.respond(headers={"content-length": "6"}, content_type="text/plain")
        await response.send("abc")
        await response.send("def", end_stream=True)

    @app.get("/too-short")
    async def too_short(request: GatewayRequest) -> None:
        response = await request.respond(headers={"content-length": "6"}, content_type="text/plain")
        await response.send("abc")

    @app.get("/breaks-off")
    async def breaks_off(request: GatewayRequest) -> None:
        response = await request.respond(content_type="text/plain")
        await response.send("half")
        raise RuntimeError("broken inside")

    @app.get("/page")
    async def page(request: GatewayRequest) -> HTTPResponse:
        response = html("<p>")
        response.add_cookie("a", "1", secure=False)
        response.add_cookie("b", "2", secure=False)
        return response

    app.add_route(answer_with(empty()), "/empty", name="empty")
    app.add_route(answer_with(redirect("/page")), "/away", name="away")
    app.add_route(fail_with(Teapot("short and stout")), "/teapot", name="teapot")
    app.add_route(fail_with(RuntimeError("secret inside")), "/bug", name="bug")
    app.add_route(fail_with(NotFound("no such thing")), "/sanics", name="sanics")
    app.add_route(answer_with(None), "/nothing", name="nothing")


def answer_with(response: HTTPResponse | None) -> Any:
    async def handler(request: GatewayRequest) -> HTTPResponse | None:
        return response

    return handler


def fail_with(error: Exception) -> Any:
    async def handler(request: GatewayRequest) -> HTTPResponse:
        raise error

    return handler


async def ask(
    port: int, start: str, fields: str = "", body: bytes = b"", *, version: str = "1.1"
) -> tuple[Reply, bytes]:
    """One request on a connection of its own: head and body as they came, the body's framing left in."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    close = "Connection: close\r\n"
    writer.write(f"{start} HTTP/{version}\r\nHost: here\r\n{close}{fields}\r\n".encode() + body)
    received = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    head, _, rest = received.partition(b"\r\n\r\n")
    return Reply(head, rest, True, []), rest


async def test_json_in_and_out(port: int) -> None:
    """A body is loaded for the handler; arguments and token are read; the answer has its length."""
    body = b'{"a":1}'
    fields = f"Content-Length: {len(body)}\r\nAuthorization: Bearer abc\r\n"
    reply, answer = await ask(port, "POST /json?x=1&x=2", fields, body)
    assert json.loads(answer) == {"got": {"a": 1}, "args": {"x": ["1", "2"]}, "token": "abc"}
    assert (reply["Content-Type"], reply["Content-Length"]) == ("application/json", str(len(answer)))
    assert reply.all("Date") != []


async def test_a_form_a_cookie_a_header(port: int) -> None:
    """What Sanic parses from fields and body, it finds."""
    fields = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 5\r\nCookie: c=d\r\nX-B: e\r\n"
    assert (await ask(port, "POST /form", fields, b"a=b+c"))[1] == b"b c d e"


async def test_path_parameters_and_the_url(port: int) -> None:
    """Routing with types, and the URL in parts."""
    assert (await ask(port, "GET /named/41?q=%20"))[1] == b"42 http://here/named/41?q=%20 q=%20 here"


async def test_a_streamed_answer(port: int) -> None:
    """`request.respond()` and `send`: chunked, with everything that middleware adds."""
    reply, body = await ask(port, "GET /stream")
    assert reply["Transfer-Encoding"] == "chunked"
    assert body == b"4\r\none,\r\n3\r\ntwo\r\n0\r\n\r\n"
    assert reply["X-Signed"] == "yes"
    assert reply["X-Request-ID"] != ""


async def test_a_streamed_answer_for_http_1_0(port: int) -> None:
    """An old client gets the bare bytes and the end of the connection."""
    reply, body = await ask(port, "GET /stream", version="1.0")
    assert (reply.all("Transfer-Encoding"), reply["Connection"], body) == ([], "close", b"one,two")


async def test_a_streamed_answer_of_known_length(port: int) -> None:
    """An announced length is kept as the framing."""
    reply, body = await ask(port, "GET /known-length")
    assert (reply["Content-Length"], reply.all("Transfer-Encoding"), body) == ("6", [], b"abcdef")


async def test_a_streamed_request(port: int) -> None:
    """A body of any size reaches a streaming handler piece by piece, chunked or not."""
    body = b"x" * 1_000_000
    assert (await ask(port, "POST /upload", f"Content-Length: {len(body)}\r\n", body))[1] == b"1000000"
    chunked = b"F4240\r\n" + body + b"\r\n0\r\n\r\n"
    assert (await ask(port, "POST /upload", "Transfer-Encoding: chunked\r\n", chunked))[1] == b"1000000"


@pytest.mark.parametrize("target", ["/stream", "/known-length", "/page", "/empty"])
async def test_no_body_where_none_belongs(target: str, port: int) -> None:
    """HEAD is answered without a body, 204 without a length."""
    reply, body = await ask(port, f"{'GET' if target == '/empty' else 'HEAD'} {target}")
    assert body == b"" or reply.status == 405
    assert target != "/empty" or (reply.status, reply.all("Content-Length")) == (204, [])


async def test_cookies_and_redirects(port: int) -> None:
    """Repeated fields stay separate; a redirect says where to."""
    assert len((await ask(port, "GET /page"))[0].all("Set-Cookie")) == 2
    reply, _ = await ask(port, "GET /away")
    assert (reply.status, reply["Location"]) == (302, "/page")


async def test_middleware_answers_instead(port: int) -> None:
    """Request middleware that answers ends the request; response middleware still runs."""
    reply, body = await ask(port, "GET /stopped")
    assert (reply.status, body, reply["X-Signed"]) == (418, b"stopped", "yes")


async def test_sanics_own_exceptions_are_told_in_our_words(port: int, said: list[str]) -> None:
    """Whatever is raised that is not a GatewayError is a 500 in the envelope."""
    for target in ("/sanics", "/nothing", "/bug"):
        reply, body = await ask(port, f"GET {target}")
        envelope = json.loads(body)
        assert envelope["error"] == {"code": 500, "message": "internal server error"}
        assert envelope["request_id"] == reply["X-Request-ID"]
        assert any(envelope["request_id"] in message for message in said)


async def test_a_bug_is_told_to_the_log_only(port: int, said: list[str]) -> None:
    """The client learns nothing of an exception; the log has its traceback, and the worker serves on."""
    reply, body = await ask(port, "GET /bug")
    assert b"secret" not in body + reply.head
    assert any("Traceback" in message and "secret inside" in message for message in said)
    assert (await ask(port, "GET /page"))[0].status == 200


@pytest.mark.parametrize(("target", "sent"), [("/breaks-off", b"4\r\nhalf\r\n"), ("/too-short", b"abc")])
async def test_an_answer_that_breaks_off_does_not_look_whole(
    target: str, sent: bytes, port: int, said: list[str]
) -> None:
    """After a failure in mid-answer the connection ends without the end of the body."""
    assert (await ask(port, f"GET {target}"))[1] == sent


async def test_an_answer_that_breaks_off_resets_an_old_client(port: int) -> None:
    """HTTP/1.0 takes the end of the connection for the end of the body: only a reset says that it is none."""
    with pytest.raises(ConnectionResetError):
        await ask(port, "GET /breaks-off", version="1.0")
