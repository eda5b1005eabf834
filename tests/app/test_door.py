"""What the door lets in: exactly one well-formed request at a time (RFC 9112); everything else is refused."""

from __future__ import annotations

import pytest

from tests.backend import Backend, Connection
from tests.gateway import STATIC_KEY, Gateway

AUTH = f"Authorization: Bearer {STATIC_KEY}\r\n".encode()


def request(
    fields: bytes = b"", body: bytes = b"", start: bytes = b"POST /x HTTP/1.1", host: bytes = b"Host: h\r\n"
) -> bytes:
    return start + b"\r\n" + host + AUTH + fields + b"\r\n" + body


REFUSED = {
    "both framings": request(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "both framings, other order": request(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"),
    "two lengths": request(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"),
    "two codings": request(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "coding gzip, chunked": request(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "coding xchunked": request(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "coding after a vertical tab": request(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"),
    "space before the colon": request(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
    "space before a name": request(b" Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    "folded line": request(b"X: a\r\n b\r\n"),
    "line without colon": request(b"Xa\r\n"),
    "bare LF in a value": request(b"X: y\nTransfer-Encoding: chunked\r\n"),
    "bare CR in a value": request(b"X: y\rZ: z\r\n"),
    "NUL in a value": request(b"X: y\0z\r\n"),
    "control character in a name": request(b"X\x01: y\r\n"),
    "empty name": request(b": y\r\n"),
    "Kelvin sign in a name": request(b"\xe2\x84\xaaeep: y\r\n"),
    "HTTP/1.0 chunked": request(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"POST /x HTTP/1.0"),
    "HTTP/1.2": request(start=b"GET /x HTTP/1.2"),
    "HTTP/2.0": request(start=b"GET /x HTTP/2.0"),
    "HTTP/0.9": request(start=b"GET /x HTTP/0.9"),
    "no Host": request(host=b"", start=b"GET /x HTTP/1.1"),
    "two Hosts": request(host=b"Host: a\r\nHost: b\r\n", start=b"GET /x HTTP/1.1"),
    "Host with a path": request(host=b"Host: a/../b?c#d e\r\n", start=b"GET /x HTTP/1.1"),
    "absolute target": request(start=b"GET http://evil/x HTTP/1.1"),
    "absolute target without path": request(start=b"GET http://evil HTTP/1.1"),
    "relative target": request(start=b"GET a/b HTTP/1.1"),
    "target with a fragment": request(start=b"GET /a#b HTTP/1.1"),
    "target with a tab": request(start=b"GET /a\tb HTTP/1.1"),
    "target beyond ASCII": request(start=b"GET /\xc3\xa9 HTTP/1.1"),
    "star for GET": request(start=b"GET * HTTP/1.1"),
    "CONNECT": request(start=b"CONNECT h:443 HTTP/1.1"),
    "RTSP": request(start=b"GET /x RTSP/1.0"),
    "two spaces before the target": request(start=b"GET  /x HTTP/1.1"),
    "two spaces before the version": request(start=b"GET /x  HTTP/1.1"),
    "space after the version": request(start=b"GET /x HTTP/1.1 "),
    "lower-case protocol": request(start=b"GET /x http/1.1"),
    "no version": b"GET /x\r\n\r\n",
    "bare LF after the request line": request().replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n"),
    "CR in the target": request(start=b"GET /a\rb HTTP/1.1"),
    "NUL in the target": request(start=b"GET /a\0b HTTP/1.1"),
    "DEL in the target": request(start=b"GET /a\x7fb HTTP/1.1"),
    "empty target": request(start=b"GET  HTTP/1.1"),
    "authority target": request(start=b"GET evil:443 HTTP/1.1"),
    "query only": request(start=b"GET ?q HTTP/1.1"),
    "coding chunked, identity": request(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
    "coding after a comma": request(b"Transfer-Encoding: ,chunked\r\n", b"0\r\n\r\n"),
    "coding after U+0085": request(b"Transfer-Encoding: \xc2\x85chunked\r\n", b"0\r\n\r\n"),
    "coding empty": request(b"Transfer-Encoding:\r\n"),
    "coding gzip": request(b"Transfer-Encoding: gzip\r\n"),
    "space before the colon of a length": request(b"Content-Length : 5\r\n", b"hello"),
    "DEL in a value": request(b"X: a\x7fb\r\n"),
    "bell in a value": request(b"X: a\x07b\r\n"),
    "space in a name": request(b"X Y: z\r\n"),
    "NUL in a name": request(b"X\0: z\r\n"),
    "folded first line": request(host=b" Host: h\r\n"),
    "empty Host": request(host=b"Host:\r\n"),
    "Host with credentials": request(host=b"Host: a@b\r\n"),
    "Host with a port of letters": request(host=b"Host: h:http\r\n"),
    "method with an @": request(start=b"G@T /x HTTP/1.1"),
    "method beyond ASCII": request(start=b"G\xc3\x89T /x HTTP/1.1"),
    "method without end": b"G" * 40 + b"\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS on the plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64,
    **{
        f"length {value!r}": request(b"Content-Length: " + value + b"\r\n", b"hello")
        for value in (
            b"\xef\xbc\x95",
            b"\xa05",
            b"5\x0c",
            b"5 5",
            b"5\n",
            b"5\r",
            b"+5",
            b"-5",
            b"5_0",
            b"0x5",
            b"5, 5",
            b"5;",
            b"",
            b"\xd9\xa5",
            b"5\x0b",
            b"9" * 30,
        )
    },
    **{
        f"chunk {chunk[:16]!r}": request(b"Transfer-Encoding: chunked\r\n", chunk)
        for chunk in (
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b" 5\r\nhello\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"5_0\r\n",
            b"0X5\r\nhello\r\n0\r\n\r\n",
            b"\x0b5\r\nhello\r\n0\r\n\r\n",
            b"\xd9\xa5\r\nhello\r\n0\r\n\r\n",
            b"-1\r\nhello\r\n0\r\n\r\n",
            b"-0\r\n\r\n",
            b"g\r\n\r\n",
            b";a=b\r\n\r\n",
            b"5\n\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"7\r\nhello\r\n0\r\n\r\n",
            b"0\r\nX : y\r\n\r\n",
            b"0\r\nX: y\r\n z\r\n\r\n",
            b"0\r\nX: a\0b\r\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"\r\n5\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\n0\n\n",
            b"5\r\nhelloXX0\r\n\r\n",
            b"3\r\nhello\r\n0\r\n\r\n",
            b"F" * 20 + b"\r\n",
            b"5;\nx\r\nhello\r\n0\r\n\r\n",
            b"0\r\nContent-Length: 4\r\n\r\n",
        )
    },
}


@pytest.mark.parametrize("case", REFUSED)
def test_malformed_requests_are_refused_and_the_connection_closed(
    case: str, gateway: Gateway, backend: Backend
) -> None:
    """What parsers could read differently gets 400 in the envelope; nothing reaches the backend, all is closed."""
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n" + AUTH + b"\r\n"
    with gateway.client() as client:
        reply = client.send(REFUSED[case] + smuggled).reply()
        assert reply.status == 400, reply
        assert reply.json()["error"]["code"] == 400
        assert reply.json()["request_id"] == reply["X-Request-ID"]
        assert client.rest() == b""
    assert backend.requests == []
    assert gateway.access(reply["X-Request-ID"])["status"] == 400


def test_refusals_leave_the_log_without_a_traceback(gateway: Gateway, backend: Backend) -> None:
    """Whatever comes in, the worker has nothing to complain of: no exception in a callback, only access lines."""
    for case in REFUSED.values():
        gateway.ask(case)
    assert "Traceback" not in gateway.output
    assert [line for line in gateway.log() if "message" in line and line["level"] == "error"] == []


ACCEPTED: dict[str, tuple[bytes, bytes, bytes]] = {
    **{
        f"method {method.decode()}": (request(start=method + b" /x HTTP/1.1"), method + b" /x HTTP/1.1", b"")
        for method in (
            b"PURGE",
            b"PROPFIND",
            b"get",
            b"FOO",
            b"M-SEARCH",
            b"QUERY",
            b"TRACE",
            b"PRI",
            b"SOURCE",
            b"!#$%&'*+.^_`|~0",
        )
    },
    **{
        f"target {target.decode()}": (
            request(start=b"GET " + target + b" HTTP/1.1"),
            b"GET " + target + b" HTTP/1.1",
            b"",
        )
        for target in (
            b"/a%2Fb",
            b"//x",
            b"/a?",
            b"/?",
            b"/a\\b",
            b"/'\"<>^`{|}",
            b"/%2e%2e/a",
            b"/a/../b",
            b"/;p?a=/?&b=[]",
            b"/" + b"/" * 2_000,
        )
    },
    "star": (request(start=b"OPTIONS * HTTP/1.1"), b"OPTIONS * HTTP/1.1", b""),
    "empty lines first": (b"\r\n\r\n" + request(start=b"GET /x HTTP/1.1"), b"GET /x HTTP/1.1", b""),
    "HTTP/1.0": (request(start=b"GET /x HTTP/1.0"), b"GET /x HTTP/1.1", b""),
    "HTTP/1.0 without Host": (request(start=b"GET /x HTTP/1.0", host=b""), b"GET /x HTTP/1.1", b""),
    "HTTP/1.0 with a body": (
        request(b"Content-Length: 5\r\n", b"hello", b"POST /x HTTP/1.0"),
        b"Content-Length: 5",
        b"hello",
    ),
    "value beyond ASCII": (request(b"X: \xc3\xa9\x80\xff\r\n"), b"X: \xc3\xa9\x80\xff", b""),
    "empty value": (request(b"X:\r\nY: \t \r\n"), b"X: \r\nY: ", b""),
    "value with a tab": (request(b"X:  a\tb  \r\n"), b"X: a\tb", b""),
    "Host with a port": (request(host=b"Host: h:8080\r\n"), b"X-Forwarded-Host: h:8080", b""),
    "Host that is an IPv6 address": (
        request(host=b"Host: [2001:db8::7]:80\r\n"),
        b"X-Forwarded-Host: [2001:db8::7]:80",
        b"",
    ),
    "length with zeros": (request(b"Content-Length: 005\r\n", b"hello"), b"Content-Length: 5", b"hello"),
    "length with space": (request(b"Content-Length:   5  \r\n", b"hello"), b"Content-Length: 5", b"hello"),
    "Chunked": (
        request(b"Transfer-Encoding: Chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
        b"Transfer-Encoding: chunked",
        b"5\r\nhello\r\n0\r\n\r\n",
    ),
    "chunk sizes with zeros": (
        request(b"Transfer-Encoding: chunked\r\n", b"005\r\nhello\r\n000\r\n\r\n"),
        b"Transfer-Encoding: chunked",
        b"5\r\nhello\r\n0\r\n\r\n",
    ),
    "chunk extensions": (
        request(b"Transfer-Encoding: chunked\r\n", b'5;a;b=c;d="e f"\r\nhello\r\n0;x\r\n\r\n'),
        b"Transfer-Encoding: chunked",
        b"5\r\nhello\r\n0\r\n\r\n",
    ),
    "trailers": (
        request(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-Plan-Tier: x\r\n\r\n"),
        b"Transfer-Encoding: chunked",
        b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    ),
    "h2c upgrade": (
        request(
            b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n", start=b"GET /x HTTP/1.1"
        ),
        b"GET /x HTTP/1.1",
        b"",
    ),
    "h2c upgrade with a body": (
        request(b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n", b"hello"),
        b"Content-Length: 5",
        b"hello",
    ),
    "h2c upgrade with a chunked body": (
        request(b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
        b"Transfer-Encoding: chunked",
        b"5\r\nhello\r\n0\r\n\r\n",
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_well_formed_requests_reach_the_backend_exactly_once(case: str, gateway: Gateway, backend: Backend) -> None:
    """What HTTP allows passes as one request, byte for byte where it matters, and the connection can be used again."""
    data, line, body = ACCEPTED[case]
    with gateway.client() as client:
        assert client.send(data).reply().status == 200
        if b"HTTP/1.0" not in data:
            assert client.send(request(start=b"GET /next HTTP/1.1")).reply().status == 200
    seen = backend.requests
    assert len(seen) == (1 if b"HTTP/1.0" in data else 2)
    head, _, seen_body = seen[0].partition(b"\r\n\r\n")
    assert b"\r\n" + line + b"\r\n" in b"\r\n" + head + b"\r\n"
    assert seen_body == body
    assert b"Upgrade" not in head


def test_a_request_in_single_bytes_is_one_request(gateway: Gateway, backend: Backend) -> None:
    """However slowly it comes, a request is read as if it had come at once."""
    data, _, _ = ACCEPTED["chunk extensions"]
    with gateway.client() as client:
        for i in range(len(data)):
            client.send(data[i : i + 1])
        assert client.reply().status == 200
    assert [seen.partition(b"\r\n\r\n")[0].split(b"\r\n")[0] for seen in backend.requests] == [b"POST /x HTTP/1.1"]


def test_pipelined_requests_are_answered_in_order(gateway: Gateway, backend: Backend) -> None:
    """Forty requests in one write, with and without bodies, strange methods among them: forty answers, in order."""

    def echo(connection: Connection) -> None:
        while connection.read():
            target = connection.head.split(b" ")[1]
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))

    backend.script = echo
    kinds = [
        (b"GET", b"", b""),
        (b"POST", b"Content-Length: 5\r\n", b"hello"),
        (b"FROB", b"", b""),
        (b"PUT", b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    ]
    sent = [
        request(fields, body, b"%b /%d HTTP/1.1" % (method, i)) for i in range(10) for method, fields, body in kinds
    ]
    with gateway.client() as client:
        client.send(b"".join(sent))
        assert [client.reply().body for _ in sent] == [b"/%d" % (i // 4) for i in range(40)]


def test_an_error_amid_pipelined_requests_comes_last(gateway: Gateway, backend: Backend) -> None:
    """What came before the malformed request is answered, then it gets its 400, then the connection ends."""
    with gateway.client() as client:
        client.send(request(start=b"GET /a HTTP/1.1") * 3 + b"GET /bad HTTP/9.9\r\n\r\n" + request() * 3)
        assert [client.reply().status for _ in range(4)] == [200, 200, 200, 400]
        assert client.rest() == b""
    assert len(backend.requests) == 3


# --- keep-alive ---


@pytest.mark.parametrize(
    ("start", "fields", "is_kept"),
    [
        (b"GET /x HTTP/1.1", b"", True),
        (b"GET /x HTTP/1.1", b"Connection: keep-alive, x\r\n", True),
        (b"GET /x HTTP/1.1", b"Connection: Close\r\n", False),
        (b"GET /x HTTP/1.1", b"Connection: x, close\r\n", False),
        (b"GET /x HTTP/1.0", b"", False),
        (b"GET /x HTTP/1.0", b"Connection: keep-alive\r\n", False),
    ],
)
def test_a_connection_is_kept_or_closed_as_announced(
    start: bytes, fields: bytes, is_kept: bool, gateway: Gateway, backend: Backend
) -> None:
    """HTTP/1.1 keeps the connection unless it is told to close; HTTP/1.0 closes. The answer says which."""
    with gateway.client() as client:
        reply = client.send(request(fields, start=start)).reply()
        assert reply.all("Connection") == ([] if is_kept else ["close"])
        if is_kept:
            assert client.send(request(start=b"GET /y HTTP/1.1")).reply().status == 200
        else:
            assert client.rest() == b""


def test_a_refused_small_body_is_read_away(gateway: Gateway, backend: Backend) -> None:
    """A 401 to an upload of a few bytes leaves the connection usable, whenever the bytes come."""
    data = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n"
    with gateway.client() as client:
        assert client.send(data + b"12345").reply().status == 401
        assert client.send(b"67890" + request(start=b"GET /y HTTP/1.1")).reply().status == 200


def test_a_refused_large_body_ends_the_connection_after_its_answer(gateway: Gateway, backend: Backend) -> None:
    """A client that is still sending megabytes can read the answer: the connection is not reset under it."""
    data = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n"
    with gateway.client() as client:
        client.send(data + b"x" * 2_000_000)
        reply = client.reply()
        assert (reply.status, reply["Connection"]) == (401, "close")
        assert client.rest() == b""
