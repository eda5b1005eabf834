"""Requests that a gateway has to forward, by name: the exact bytes, and what the backend must have read. Data only."""

from __future__ import annotations

from dataclasses import dataclass

from tests.gateway import STATIC_KEY

AUTH = f"Authorization: Bearer {STATIC_KEY}\r\n".encode()


def request(
    fields: bytes = b"", body: bytes = b"", start: bytes = b"POST /x HTTP/1.1", host: bytes = b"Host: h\r\n"
) -> bytes:
    return start + b"\r\n" + host + AUTH + fields + b"\r\n" + body


SMUGGLED = request(start=b"GET /smuggled HTTP/1.1")
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HELLO = b"5\r\nhello\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Forwarded:
    """`raw` is sent; one request must arrive: `line` (method and target), with `fields`, without `absent`, `body`."""

    raw: bytes
    line: bytes = b"POST /x"
    body: bytes = b""
    fields: tuple[tuple[bytes, bytes], ...] = ()
    absent: tuple[bytes, ...] = ()
    trailers: tuple[tuple[bytes, bytes], ...] = ()


def method(name: bytes) -> Forwarded:
    return Forwarded(request(start=name + b" /x HTTP/1.1"), name + b" /x")


def target(value: bytes) -> Forwarded:
    return Forwarded(request(start=b"GET %b HTTP/1.1" % value), b"GET " + value)


def body(framing: bytes, framed: bytes, meant: bytes, start: bytes = b"POST /x") -> Forwarded:
    return Forwarded(request(framing, framed, start + b" HTTP/1.1"), start, meant)


def field(line: bytes, name: bytes, value: bytes) -> Forwarded:
    return Forwarded(request(line + b"\r\n"), fields=((name, value),))


def dropped(line: bytes, *names: bytes) -> Forwarded:
    return Forwarded(request(line + b"\r\n"), absent=names)


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
METHODS = (b"PURGE", b"PROPFIND", b"M-SEARCH", b"QUERY", b"TRACE", b"DELETE", b"OPTIONS", b"PATCH", b"SEARCH")
STRANGE_METHODS = (b"get", b"FOO", b"PRI", b"SOURCE", b"FLUSH", b"Post", b"!#$%&'*+.^_`|~0", b"M" * 32)
"""Tokens that are methods to RFC 9110 and not to every server: a reader may refuse those."""
TARGETS = (
    b"/a%2Fb",
    b"//x",
    b"//evil",
    b"//evil/x",
    b"///x",
    b"/a?",
    b"/?",
    b"/a??b",
    b"/a\\b",
    b"/'\"<>^`{|}",
    b"/%00",
    b"/%0d%0aX:%20y",
    b"/%zz",
    b"/%",
    b"/%2e%2e/a",
    b"/a/../b",
    b"/../../etc/passwd",
    b"/a/./b",
    b"/;p?a=/?&b=[]",
    b"/@evil",
    b"/http://evil/",
    b"/x:80",
    b"/" + b"/" * 2_000,
    b"/" + b"x" * 8_191,
)

FORWARDED: dict[str, Forwarded] = {
    **{f"method {name.decode()}": method(name) for name in (*METHODS, *STRANGE_METHODS)},
    **{f"target {value[:40].decode()}": target(value) for value in TARGETS},
    "star": Forwarded(request(start=b"OPTIONS * HTTP/1.1"), b"OPTIONS *"),
    "empty lines first": Forwarded(b"\r\n\r\n" + request()),
    "HTTP/1.0": Forwarded(request(start=b"GET /x HTTP/1.0"), b"GET /x"),
    "HTTP/1.0 without Host": Forwarded(request(start=b"GET /x HTTP/1.0", host=b""), b"GET /x"),
    "HTTP/1.0 with a body": Forwarded(
        request(b"Content-Length: 5\r\n", b"hello", b"POST /x HTTP/1.0"),
        body=b"hello",
        fields=((b"content-length", b"5"),),
    ),
    # --- bodies ---
    "length": body(b"Content-Length: 5\r\n", b"hello", b"hello"),
    "length zero": body(b"Content-Length: 0\r\n", b"", b""),
    "length with zeros": body(b"Content-Length: 005\r\n", b"hello", b"hello"),
    "length with space": body(b"Content-Length:   5  \r\n", b"hello", b"hello"),
    "length with tabs": body(b"Content-Length:\t5\t\r\n", b"hello", b"hello"),
    "length in lower case": body(b"content-length:5\r\n", b"hello", b"hello"),
    "length that Connection names": body(b"Connection: Content-Length\r\nContent-Length: 5\r\n", b"hello", b"hello"),
    "GET with a body": body(b"Content-Length: 5\r\n", b"hello", b"hello", b"GET /x"),
    "DELETE with a chunked body": body(CHUNKED, HELLO, b"hello", b"DELETE /x"),
    "a body that is a request": body(b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED, SMUGGLED),
    "GET with a body that is a request": body(b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED, SMUGGLED, b"GET /x"),
    "a chunk that is a request": body(CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED), SMUGGLED),
    "a chunk that ends a chunked body": body(CHUNKED, b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
    "Chunked": body(b"Transfer-Encoding: Chunked\r\n", HELLO, b"hello"),
    "CHUNKED": body(b"TRANSFER-ENCODING: CHUNKED\r\n", HELLO, b"hello"),
    "chunked after tabs": body(b"Transfer-Encoding:\t chunked  \r\n", HELLO, b"hello"),
    "chunked that Connection names": body(b"Connection: Transfer-Encoding\r\n" + CHUNKED, HELLO, b"hello"),
    "chunked and empty": body(CHUNKED, b"0\r\n\r\n", b""),
    "chunk sizes with zeros": body(CHUNKED, b"005\r\nhello\r\n000\r\n\r\n", b"hello"),
    "chunk sizes in either case": body(CHUNKED, b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
    "chunk size of sixteen digits": body(CHUNKED, b"0000000000000005\r\nhello\r\n0\r\n\r\n", b"hello"),
    "chunk extensions": body(CHUNKED, b'5;a;b=c;d="e f"\r\nhello\r\n0;x\r\n\r\n', b"hello"),
    "chunks of one byte": body(CHUNKED, b"1\r\nh\r\n1\r\n\n\r\n1\r\n\r\r\n0\r\n\r\n", b"h\n\r"),
    "trailers": Forwarded(
        request(CHUNKED, b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-Plan-Tier: x\r\nHost: evil\r\nAuthorization: a\r\n\r\n"),
        body=b"hello",
        trailers=((b"x-sum", b"1"),),
    ),
    # --- fields ---
    "value beyond ASCII": field(b"X: \xc3\xa9\x80\xff", b"x", b"\xc3\xa9\x80\xff"),
    "empty value": field(b"X:", b"x", b""),
    "blank value": field(b"X: \t ", b"x", b""),
    "value with a tab": field(b"X:  a\tb  ", b"x", b"a\tb"),
    "value with everything printable": field(b"X: " + bytes(range(33, 127)), b"x", bytes(range(33, 127))),
    "value that looks like a field": field(b"X: Transfer-Encoding: chunked", b"x", b"Transfer-Encoding: chunked"),
    "value of percent signs": field(b"X: %0d%0aY: z", b"x", b"%0d%0aY: z"),
    "name of every character": field(b"!#$%&'*+-.^_`|~0aZ: y", b"!#$%&'*+-.^_`|~0az", b"y"),
    "name of digits": field(b"1: y", b"1", b"y"),
    "names that resemble framing": Forwarded(
        request(b"X-Transfer-Encoding: chunked\r\nContent-Lengthx: 5\r\nXContent-Length: 5\r\n"),
        fields=((b"x-transfer-encoding", b"chunked"), (b"content-lengthx", b"5")),
    ),
    "framing with underscores": dropped(
        b"Content_Length: 5\r\nTransfer_Encoding: chunked", b"content_length", b"transfer_encoding"
    ),
    "spoofed identity": dropped(
        b"X-Organization-ID: evil\r\nx_organization_id: evil\r\nX-Plan_Tier: evil\r\nForwarded: for=1.2.3.4",
        b"x_organization_id",
        b"x-plan_tier",
        b"forwarded",
        b"authorization",
    ),
    "fields that Connection names": dropped(b"Connection: X-A, x-b,,close-not\r\nX-A: 1\r\nX-B: 2", b"x-a", b"x-b"),
    "hop-by-hop fields": dropped(
        b"Keep-Alive: 1\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: x\r\nUpgrade: x/1\r\nTE: gzip",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"upgrade",
        b"te",
    ),
    "as many fields as may be": Forwarded(request(b"X: y\r\n" * 98), fields=((b"x", b"y"),) * 98),
    "a head of almost the greatest size": Forwarded(request(b"X: " + b"y" * 16_200 + b"\r\n")),
    # --- Host ---
    **{
        f"Host {host.decode()}": Forwarded(
            request(host=b"Host: %b\r\n" % host), fields=((b"x-forwarded-host", host.strip()),)
        )
        for host in (
            b"h:8080",
            b"h:",
            b"a,b",
            b"h:80 ",
            b"192.0.2.1",
            b"[2001:db8::7]:80",
            b"[::]",
            b"xn--a.b_c~d",
            b"%41",
        )
    },
    # --- switching protocols, and what is to be continued ---
    "h2c upgrade": Forwarded(
        request(UPGRADE, start=b"GET /x HTTP/1.1"), b"GET /x", absent=(b"upgrade", b"http2-settings")
    ),
    "h2c upgrade with a body": body(UPGRADE + b"Content-Length: 5\r\n", b"hello", b"hello"),
    "h2c upgrade with a chunked body": body(UPGRADE + CHUNKED, HELLO, b"hello"),
    "expectation with its body": body(b"Expect: 100-continue\r\nContent-Length: 5\r\n", b"hello", b"hello"),
    "expectation in capitals": body(b"EXPECT: 100-CONTINUE\r\nContent-Length: 5\r\n", b"hello", b"hello"),
    "expectation without a body": Forwarded(request(b"Expect: 100-continue\r\n", start=b"GET /x HTTP/1.1"), b"GET /x"),
    "expectation in HTTP/1.0": Forwarded(
        request(b"Expect: 100-continue\r\nContent-Length: 5\r\n", b"hello", b"POST /x HTTP/1.0"), body=b"hello"
    ),
    "expectation of something else": body(b"Expect: 200-ok\r\nContent-Length: 5\r\n", b"hello", b"hello"),
    "expectation twice": body(b"Expect: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n", b"hello", b"hello"),
}
