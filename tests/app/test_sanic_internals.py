"""What we rely on in Sanic and nobody promised: a new version that moves it fails here, not in production."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
import sanic
from sanic import Request, Sanic
from sanic.compat import Header
from sanic.handlers import ErrorHandler
from sanic.http.constants import Stage
from sanic.http.stream import Stream
from sanic.response import BaseHTTPResponse, HTTPResponse
from sanic.router import Router
from sanic.server.protocols.http_protocol import HttpProtocol

from app.door import DoorProtocol
from app.exchange import Exchange
from app.message import Message
from app.request import GatewayRequest


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def is_set(request: Request[Any, Any], slot: str) -> bool:
    try:
        getattr(Request, slot).__get__(request, type(request))
    except AttributeError:
        return False
    return True


def test_the_version_is_one_that_was_looked_at() -> None:
    """Sanic 25.12 from its first patch on: the door was written against its source."""
    year, month, patch = (int(part) for part in sanic.__version__.split("."))
    assert (year, month) == (25, 12)
    assert patch >= 1


class Connection:
    """As much of a door as an exchange needs to be made."""

    request_max_size = 1
    peer_ip = "192.0.2.1"
    transport = None
    conn_info = None


def test_our_request_sets_what_sanics_own_sets() -> None:
    """Every slot that Sanic's constructor fills is filled in our request too, or is ours to compute."""
    message = Message()
    message.method, message.target = b"GET", b"/x"
    ours = GatewayRequest(message=message, exchange=Exchange(Connection(), message), app=None)  # type: ignore[arg-type]
    theirs: Request[Any, Any] = Request(b"/x", Header(), "1.1", "GET", None, None)  # type: ignore[arg-type]
    computed = {"headers", "_parsed_url"}
    filled = {slot for slot in Request.__slots__ if slot != "__weakref__" and is_set(theirs, slot)}
    assert filled >= computed
    assert {slot for slot in filled - computed if not hasattr(ours, slot)} == set()


def test_the_stages_of_a_stream_are_the_known_ones() -> None:
    """An exchange moves through Sanic's stages; Sanic compares them."""
    assert [stage.name for stage in Stage] == ["IDLE", "REQUEST", "HANDLER", "RESPONSE", "FAILED"]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Sanic.handle_request, ["self", "request"]),
        (Sanic.handle_exception, ["self", "request", "exception", "run_middleware"]),
        (Router.get, ["self", "path", "method", "host"]),
        (ErrorHandler.response, ["self", "request", "exception"]),
        (Stream.respond, ["self", "response"]),
        (BaseHTTPResponse.send, ["self", "data", "end_stream"]),
        (Request.respond, ["self", "response", "status", "headers", "content_type"]),
        (Request.receive_body, ["self"]),
        (HttpProtocol.__init__, ["self", "loop", "app", "signal", "connections", "state", "unix", "kwargs"]),
        (HttpProtocol.check_timeouts, ["self"]),
        (HttpProtocol.close, ["self", "timeout"]),
        (HttpProtocol.close_if_idle, ["self"]),
        (HttpProtocol.connection_made, ["self", "transport"]),
        (HttpProtocol.connection_lost, ["self", "exc"]),
        (HttpProtocol.data_received, ["self", "data"]),
        (HttpProtocol.connection_task, ["self"]),
        (HttpProtocol.abort, ["self"]),
        (HttpProtocol.pause_writing, ["self"]),
        (HttpProtocol.resume_writing, ["self"]),
    ],
)
def test_what_we_call_or_override_has_the_known_shape(function: Any, expected: list[str]) -> None:
    """The functions that the door calls, or that call the door, take what they took."""
    assert parameters(function) == expected


async def test_a_protocol_has_the_attributes_that_the_door_uses() -> None:
    """Set by Sanic's constructor, used by ours."""
    Sanic.test_mode = True
    app: Sanic[Any, Any] = Sanic("internals", configure_logging=False)
    door = DoorProtocol(loop=asyncio.get_running_loop(), app=app)
    for name in ("app", "loop", "transport", "connections", "conn_info", "_can_write", "_task", "_unix"):
        assert hasattr(door, name), name
    for name in ("request_handler", "request_class", "request_max_size", "_callback_check_timeouts"):
        assert hasattr(door, name), name
    assert door.request_handler == app.handle_request


def test_the_body_of_an_answer_is_where_we_look() -> None:
    """Sanic's answers: status, body, headers and what is made of them."""
    response = HTTPResponse("ok", 201, {"X-A": "1"}, "text/plain")
    assert (response.status, response.body) == (201, b"ok")
    assert (b"x-a", b"1") in [(name.lower(), value) for name, value in response.processed_headers]
    assert response.stream is None


def test_the_touch_up_of_sanic_leaves_the_door_alone() -> None:
    """Sanic rewrites the source of the methods it names; ours must not be among them under our class."""
    assert DoorProtocol.connection_task is not HttpProtocol.connection_task
    assert inspect.getsourcefile(DoorProtocol.connection_task) == inspect.getsourcefile(DoorProtocol)
