"""Expect: 100-continue (RFC 9110 section 10.1.1): who says it, when, and what becomes of the connection without it."""

from __future__ import annotations

import time

from tests.backend import OK, Backend, Connection
from tests.gateway import STATIC_KEY, Client, Gateway

HEAD = (
    f"POST /x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {STATIC_KEY}\r\nContent-Length: 5\r\n"
    "Expect: 100-continue\r\n\r\n"
).encode()


def interim(client: Client) -> bytes:
    """The next head on the connection, which has to be a 1xx."""
    head = client._until(b"\r\n\r\n")
    assert head is not None
    assert head.startswith(b"HTTP/1.1 1"), head
    return head


def test_the_backend_says_continue(gateway: Gateway, backend: Backend) -> None:
    """The backend's own 100 goes to the client, then the body to the backend, which has seen the Expect."""

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 100 Continue\r\nX-Early: 1\r\n\r\n")
        connection.read_body()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(connection.body), connection.body))
        assert b"Expect: 100-continue" in connection.head

    backend.script = script
    with gateway.client() as client:
        assert interim(client.send(HEAD)) == b"HTTP/1.1 100 Continue\r\nX-Early: 1"
        reply = client.send(b"hello").reply()
        assert (reply.status, reply.body, reply.interim) == (200, b"hello", [])


def test_a_silent_backend_is_spoken_for(gateway: Gateway, backend: Backend) -> None:
    """When the backend only waits, the client gets a 100 from us after a second, and the request goes through."""
    with gateway.client() as client:
        began = time.monotonic()
        assert interim(client.send(HEAD)) == b"HTTP/1.1 100 Continue"
        assert time.monotonic() - began >= 0.9
        assert client.send(b"hello").reply().status == 200
    assert backend.requests[0].endswith(b"\r\n\r\nhello")


def test_a_client_that_does_not_wait_is_not_told(gateway: Gateway, backend: Backend) -> None:
    """With the body on its heels, an Expect needs no answer of its own; the connection is kept."""
    with gateway.client() as client:
        for _ in range(2):
            reply = client.send(HEAD + b"hello").reply()
            assert (reply.status, reply.interim) == (200, [])


def test_a_refusal_comes_instead_of_the_continue(gateway: Gateway, backend: Backend) -> None:
    """Who may not send gets its 401 at once, without a 100, and the connection ends: a body may follow or not."""
    with gateway.client() as client:
        reply = client.send(HEAD.replace(b"Bearer", b"Basic")).reply()
        assert (reply.status, reply.interim, reply["Connection"]) == (401, [], "close")
        assert client.rest() == b""
    assert backend.requests == []


def test_a_backend_that_declines_is_passed_on(gateway: Gateway, backend: Backend) -> None:
    """A final answer before any body, 417 say, reaches the client without a 100, and the connection ends."""

    def decline(connection: Connection) -> None:
        if connection.read_head():
            connection.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")

    backend.script = decline
    with gateway.client() as client:
        reply = client.send(HEAD).reply()
        assert (reply.status, reply.body, reply.interim, reply["Connection"]) == (417, b"no", [], "close")
        assert client.rest() == b""


def test_http_1_0_knows_no_continue(gateway: Gateway, backend: Backend) -> None:
    """A client of HTTP/1.0 is sent no 1xx, whatever it or the backend says."""

    def eager(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if connection.read_body():
            connection.send(OK)

    backend.script = eager
    with gateway.client() as client:
        reply = client.send(HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"hello").reply()
        assert (reply.status, reply.interim) == (200, [])
