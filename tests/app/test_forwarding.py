"""What a backend gets: exact bytes, framed as the client framed them, and nothing that a client could forge."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from tests.backend import Backend, Connection, answer_ok
from tests.gateway import STATIC_KEY, Gateway

AUTH = f"Authorization: Bearer {STATIC_KEY}\r\n".encode()
ID = rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def request(start: bytes, fields: bytes = b"", body: bytes = b"", host: bytes = b"Host: shop.example:81\r\n") -> bytes:
    return start + b"\r\n" + host + AUTH + fields + b"\r\n" + body


def split(raw: bytes) -> tuple[bytes, list[bytes], bytes]:
    """Request line, field lines and body."""
    head, _, body = raw.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    return line, fields, body


def test_a_get_goes_on_byte_for_byte(gateway: Gateway, backend: Backend) -> None:
    """The request line, the client's own fields and the ones that backends may believe: exactly these, nothing else."""
    fields = b"ACCEPT: */*\r\nCookie: a=1\r\ncookie: b=2\r\nX-Latin: \xe9\r\nX-Empty:\r\n"
    gateway.ask(request(b"GET /a%2Fb//c/../d?x=%20&&y? HTTP/1.1", fields))
    pattern = (
        rb"GET /a%%2Fb//c/../d\?x=%%20&&y\? HTTP/1.1\r\nHost: 127\.0\.0\.1:%d\r\n"
        rb"ACCEPT: \*/\*\r\nCookie: a=1\r\ncookie: b=2\r\nX-Latin: \xe9\r\nX-Empty: \r\n"
        rb"X-Request-ID: %b\r\nX-Organization-ID: org_1\r\nX-Plan-Tier: enterprise\r\n"
        rb"X-Forwarded-For: 127\.0\.0\.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: shop\.example:81\r\n\r\n"
    ) % (backend.port, ID)
    assert re.fullmatch(pattern, backend.requests[0]), backend.requests


@pytest.mark.parametrize(
    "method", ["HEAD", "OPTIONS", "DELETE", "PROPFIND", "QUERY", "TRACE", "BREW", "get", "M-SEARCH"]
)
def test_any_method_goes_on(method: str, gateway: Gateway, backend: Backend) -> None:
    """Every method token, registered or not, in the case it was sent in."""
    assert gateway.get("/x", method=method).status == 200
    assert backend.requests[0].startswith(f"{method} /x HTTP/1.1\r\n".encode())


def test_options_of_the_server_as_a_whole(gateway: Gateway, backend: Backend) -> None:
    """`OPTIONS *` stays `*`."""
    assert gateway.ask(request(b"OPTIONS * HTTP/1.1"), "OPTIONS").status == 200
    assert backend.requests[0].startswith(b"OPTIONS * HTTP/1.1\r\n")


@pytest.mark.parametrize("method", [b"POST", b"GET", b"DELETE", b"BREW"])
def test_a_length_stays_a_length(method: bytes, gateway: Gateway, backend: Backend) -> None:
    """A body with Content-Length is forwarded with it, for methods that seldom have one too."""
    gateway.ask(request(method + b" /x HTTP/1.1", b"Content-Length: 5\r\n", b"he\0lo"))
    line, fields, body = split(backend.requests[0])
    assert line == method + b" /x HTTP/1.1"
    assert fields.count(b"Content-Length: 5") == 1
    assert body == b"he\0lo"


@pytest.mark.parametrize(("fields", "kept"), [(b"Content-Length: 0\r\n", 1), (b"Content-Length: 00\r\n", 1), (b"", 0)])
def test_an_empty_body_is_told_as_the_client_told_it(
    fields: bytes, kept: int, gateway: Gateway, backend: Backend
) -> None:
    """`Content-Length: 0` is kept, and none is invented."""
    gateway.ask(request(b"POST /x HTTP/1.1", fields))
    _, sent, body = split(backend.requests[0])
    assert sum(line.lower().startswith(b"content-length") for line in sent) == kept
    assert sent.count(b"Content-Length: 0") == kept
    assert body == b""


def test_chunked_stays_chunked(gateway: Gateway, backend: Backend) -> None:
    """A chunked body arrives chunked and whole; extensions end here; trailers pass unless they may not come late."""
    chunks = (
        b"3;ext=1\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX-Sum: 7\r\nX-Organization-ID: evil\r\nAuthorization: no\r\n\r\n"
    )
    fields = b"Transfer-Encoding: Chunked\r\nTrailer: X-Sum\r\nTE: trailers\r\n"
    gateway.ask(request(b"POST /x HTTP/1.1", fields, chunks))
    _, sent, body = split(backend.requests[0])
    assert sent.count(b"Transfer-Encoding: chunked") == 1
    assert not any(line.lower().startswith(b"content-length") for line in sent)
    assert [line for line in sent if line[:2] in (b"TE", b"Co")] == [b"TE: trailers", b"Connection: TE"]
    assert b"Trailer: X-Sum" in sent
    assert body == b"d\r\nabc0123456789\r\n0\r\nX-Sum: 7\r\n\r\n"


def test_a_chunked_body_that_trickles_in(gateway: Gateway, backend: Backend) -> None:
    """Each piece is at the backend before the client sends the next."""
    seen: list[bytes] = []

    def script(connection: Connection) -> None:
        connection.read_head()
        while not seen or seen[-1] != b"0\r\n\r\n":
            while not connection.buffer:  # the first piece may have come with the head
                assert connection.more()
            seen.append(connection.buffer)
            connection.buffer = b""
            connection.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" if len(seen) < 4 else b"HTTP/1.1 204 No\r\n\r\n")
        connection.socket.close()

    backend.script = script
    with gateway.client() as client:
        client.send(request(b"POST /x HTTP/1.1", b"Transfer-Encoding: chunked\r\n"))
        for piece in (b"1\r\na\r\n", b"2\r\nbc\r\n", b"1\r\nd\r\n"):
            client.send(piece)
            assert client._until(b"\r\n\r\n") == b"HTTP/1.1 103 Early Hints"
        assert client.send(b"0\r\n\r\n").reply().status == 204
    assert seen == [b"1\r\na\r\n", b"2\r\nbc\r\n", b"1\r\nd\r\n", b"0\r\n\r\n"]


FORGED = [
    "X-Organization-ID",
    "x-organization-id",
    "X_Organization_ID",
    "X-Organization_ID",
    "X-PLAN-TIER",
    "x_plan_tier",
    "X-Request-ID",
    "X_Request_ID",
    "X-Forwarded-For",
    "x_forwarded_for",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Real-IP",
    "Forwarded",
    "Proxy-Authorization",
]


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("smuggled", ["", "Connection: {}\r\n", "Connection: close, {}\r\nConnection: keep-alive\r\n"])
def test_a_client_cannot_say_who_it_is(name: str, smuggled: str, gateway: Gateway, backend: Backend) -> None:
    """Forged values never arrive, in no spelling, repeated or named by Connection, and ours are there exactly once."""
    fields = f"{name}: forged\r\n{smuggled.format(name)}{name.upper()}: forged\r\n"
    gateway.ask(request(b"GET /x HTTP/1.1", fields.encode()))
    _, sent, _ = split(backend.requests[0])
    assert not any(b"forged" in line for line in sent), sent
    names = [line.partition(b":")[0].replace(b"_", b"-").lower() for line in sent]
    for ours in (
        b"host",
        b"x-organization-id",
        b"x-plan-tier",
        b"x-request-id",
        b"x-forwarded-for",
        b"x-forwarded-proto",
    ):
        assert names.count(ours) == 1, (ours, sent)


@pytest.mark.parametrize("option", ["X-Organization-ID", "x-plan-tier, x-request-id", "Host, X-Forwarded-For", "close"])
def test_connection_cannot_strip_what_we_add(option: str, gateway: Gateway, backend: Backend) -> None:
    """Naming our fields in Connection does not keep them from the backend, and Connection ends here."""
    gateway.ask(request(b"GET /x HTTP/1.1", f"Connection: {option}\r\n".encode()))
    _, sent, _ = split(backend.requests[0])
    assert b"X-Organization-ID: org_1" in sent
    assert b"Host: 127.0.0.1:%d" % backend.port in sent
    assert not any(line.lower().startswith(b"connection") for line in sent)


def test_the_credential_ends_here(gateway: Gateway, backend: Backend) -> None:
    """Not a byte of the key reaches a backend."""
    gateway.ask(request(b"GET /x HTTP/1.1"))
    assert STATIC_KEY.encode() not in backend.requests[0]
    assert b"uthorization" not in backend.requests[0]


def test_hop_by_hop_fields_end_here(gateway: Gateway, backend: Backend) -> None:
    """What is between the client and us goes no further: Upgrade, Keep-Alive, TE, and what Connection names."""
    fields = (
        b"Connection: upgrade, X-Hop\r\nUpgrade: h2c\r\nKeep-Alive: 5\r\nTE: gzip\r\nX-Hop: 1\r\n"
        b"Proxy-Connection: x\r\nHTTP2-Settings: x\r\nX-End: 1\r\n"
    )
    assert gateway.ask(request(b"GET /x HTTP/1.1", fields)).status == 200
    _, sent, _ = split(backend.requests[0])
    assert {
        line.partition(b":")[0] for line in sent if not line.startswith((b"X-Forw", b"X-Req", b"X-Org", b"X-Plan"))
    } == {
        b"Host",
        b"X-End",
    }


def test_an_http_1_0_client_is_served(gateway: Gateway, backend: Backend) -> None:
    """Without a Host there is no X-Forwarded-Host, its own is not believed; the backend is spoken to in HTTP/1.1."""
    reply = gateway.ask(request(b"GET /x HTTP/1.0", b"X-Forwarded-Host: evil\r\n", host=b""))
    assert reply.status == 200
    line, sent, _ = split(backend.requests[0])
    assert line == b"GET /x HTTP/1.1"
    assert not any(b"forwarded-host" in each.lower() for each in sent)


def test_one_connection_carries_many_requests(gateway: Gateway, backend: Backend) -> None:
    """Requests one after the other share a connection to the backend."""
    gateway.get("/x")
    before = backend.accepted
    with gateway.client() as client:
        for number in range(20):
            client.send(request(b"POST /%d HTTP/1.1" % number, b"Content-Length: 3\r\n", b"abc"))
            assert client.reply().body == b"ok"
    assert backend.accepted == before


def test_backends_are_chosen_by_the_first_segment(tmp_path: Path) -> None:
    """The named one, else `default`, each behind its base path; the target itself is never cut or changed."""
    with Backend() as users, Backend() as fallback:
        urls = f"users={users.url}/v1/,default={fallback.url}/base"
        with Gateway(tmp_path / "g", {"BACKEND_URLS": urls}) as gateway:
            assert gateway.get("/users/7?q").status == 200
            assert gateway.get("/user/7").status == 200
            assert gateway.ask(request(b"OPTIONS * HTTP/1.1")).status == 200
        assert users.last_head().startswith(b"GET /v1/users/7?q HTTP/1.1\r\n")
        assert [raw.split(b"\r\n")[0] for raw in fallback.requests] == [
            b"GET /base/user/7 HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
        ]


def test_no_backend_of_that_name(tmp_path: Path) -> None:
    """With several backends and no default: 404 by the contract, limits on it, and the request counted."""
    with Backend() as one, Backend() as two:
        with Gateway(tmp_path / "g", {"BACKEND_URLS": f"one={one.url},two={two.url}"}) as gateway:
            reply = gateway.get("/three/x")
        assert (reply.status, reply.json()["error"]["message"]) == (404, "service 'three' not found")
        assert reply["X-RateLimit-Remaining-Minute"] == "999"
        assert one.requests == two.requests == []


@pytest.mark.parametrize("host", ["[::1]", "localhost"])
def test_the_host_is_the_backends(host: str, tmp_path: Path) -> None:
    """IPv6 literals stand in brackets, with the port where it is not the scheme's own."""
    with Backend(answer_ok, family=socket.AF_INET6 if host == "[::1]" else socket.AF_INET) as backend:
        with Gateway(tmp_path / "g", {"BACKEND_URLS": f"api=http://{host}:{backend.port}"}) as gateway:
            assert gateway.get("/x").status == 200
        assert f"\r\nHost: {host}:{backend.port}\r\n".encode() in backend.requests[0]
