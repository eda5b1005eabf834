"""What a stranger can find out or get at: versions, defaults of the framework, other places than the backends."""

from __future__ import annotations

import re

import pytest

from tests.backend import Backend
from tests.gateway import STATIC_KEY, Gateway

KEY = f"Authorization: Bearer {STATIC_KEY}\r\n".encode()
TELLTALE = re.compile(rb"(?i)sanic|gunicorn|uvloop|python|traceback|httptools|llhttp|/app/|\.py\b")
OWN_ANSWERS = {
    "no key": b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "HEAD": b"HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "OPTIONS": b"OPTIONS / HTTP/1.1\r\nHost: h\r\nOrigin: http://o\r\nAccess-Control-Request-Method: GET\r\n\r\n",
    "TRACE": b"TRACE / HTTP/1.1\r\nHost: h\r\nCookie: c=1\r\n\r\n",
    "a page, please": b"GET /nowhere.html HTTP/1.1\r\nHost: h\r\nAccept: text/html\r\n\r\n",
    "garbage": b"\x00\x01\x02\r\n\r\n",
    "a bad field": b"GET / HTTP/1.1\r\nHost: h\r\nBad Name: x\r\n\r\n",
    "a bad target": b"GET http://[::1 HTTP/1.1\r\nHost: h\r\n\r\n",
    "health": b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n",
    "slashes": b"GET /" + b"/" * 4_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
}


@pytest.mark.parametrize("case", OWN_ANSWERS)
def test_own_answers_tell_nothing_of_what_runs_here(case: str, gateway: Gateway, backend: Backend) -> None:
    """No `Server`, no framework's page, no leave for other origins: the envelope or a health answer, and JSON only."""
    reply = gateway.ask(OWN_ANSWERS[case], "HEAD" if case == "HEAD" else "GET")
    assert reply["Content-Type"] == "application/json"
    assert {"server", "via", "x-powered-by", "allow"} & {name.lower() for name, _ in reply.fields} == set()
    assert [name for name, _ in reply.fields if name.lower().startswith("access-control-")] == []
    assert TELLTALE.search(reply.head + reply.body) is None
    assert backend.requests == []


@pytest.mark.parametrize(
    "path",
    [
        b"/health/",
        b"//health",
        b"/%68ealth",
        b"/health;x",
        b"/health/..;/x",
        b"/x/../health",
        b"/HEALTH",
        b"/health%20",
    ],
)
def test_nothing_that_only_looks_public_is(path: bytes, gateway: Gateway, backend: Backend) -> None:
    """Only the three health targets do without a key, byte for byte; every other spelling is a proxied path."""
    assert gateway.ask(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path).status == 401
    assert gateway.ask(b"POST /health HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").status == 401
    assert backend.requests == []


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (b"/x", b"169.254.169.254"),
        (b"/x", b"127.0.0.1:1"),
        (b"//169.254.169.254/x", b"h"),
        (b"/http://169.254.169.254/x", b"h"),
        (b"/x?url=http://169.254.169.254", b"h"),
    ],
)
def test_no_client_chooses_where_a_request_goes(target: bytes, host: bytes, gateway: Gateway, backend: Backend) -> None:
    """Whatever target and `Host` say, the configured backend gets the request, under its own name."""
    sent = b"GET %b HTTP/1.1\r\nHost: %b\r\n" % (target, host) + KEY
    sent += b"X-Forwarded-Host: evil\r\nX-Original-URL: /y\r\nConnection: close\r\n\r\n"
    assert gateway.ask(sent).status == 200
    line, fields, *_ = backend.last_head().split(b"\r\n", 2)
    assert line == b"GET %b HTTP/1.1" % target
    assert fields == f"Host: 127.0.0.1:{backend.port}".encode()
    assert b"X-Forwarded-Host: %b" % host in backend.last_head()
    assert b"evil" not in backend.last_head()


def test_a_proxy_field_ends_here(gateway: Gateway, backend: Backend) -> None:
    """`Proxy` would be HTTP_PROXY to a CGI program behind the gateway (CVE-2016-5385)."""
    assert gateway.ask(b"GET /x HTTP/1.1\r\nHost: h\r\nProxy: http://evil\r\nConnection: close\r\n" + KEY + b"\r\n")
    assert b"evil" not in backend.last_head()
