"""Request lines and fields that no gateway should forward, by name: the exact bytes, and the status of the refusal.

Data only; test_hostile_requests.py sends it.
"""

from __future__ import annotations

from tests.app.corpus import Cases, each, get
from tests.app.corpus_forwarded import CHUNKED, SMUGGLED, request

# fmt: off
FIELDS: Cases = {
    "folded first line": (request(host=b" Host: h\r\n"), 400),
    "folded first line, with a tab": (request(host=b"\tHost: h\r\n"), 400),
    "bare LF after the request line": (request().replace(b"HTTP/1.1\r\n", b"HTTP/1.1\n"), 400),
    "bare LF after a field": (request().replace(b"Host: h\r\n", b"Host: h\n"), 400),
    "bare LF everywhere": (request().replace(b"\r\n", b"\n"), 400),
    "bare LF at the end of the head": (request()[:-2] + b"\n", 400),
    "bare CR everywhere": (request().replace(b"\r\n", b"\r"), 400),
    "LF CR at the end of the head": (request()[:-2] + b"\n\r", 400),
    "a second request in a value": (request(b"X: y\n\n" + SMUGGLED), 400),
    **each(
        "field",
        [
            b"X: a\r\n b", b"X: a\r\n\tb", b"X:\r\n b", b"X: a\r\n ", b"Xa", b"X Y: z", b"X : y", b"X\t: y",
            b": y", b" : y", b":", b"=: \r\nX", b"X\x01: y", b"X\0: y", b"\0X: y", b"X\x7f: y", b"X\x80: y",
            b"X\xc3\xa9: y", b"\xe2\x84\xaaeep: y", b"X(: y", b"X): y", b"X,: y", b"X/: y", b"X;: y", b"X<: y",
            b"X=: y", b"X>: y", b"X?: y", b"X[: y", b"X]: y", b"X\\: y", b"X{: y", b"X}: y", b'X": y',
            b"X\r: y", b"X\n: y", b"X: a\0b", b"X: \0", b"X: a\rb", b"X: a\nb", b"X: a\r", b"X: \ra", b"X: a\n",
            b"X: a\r\rb", b"X: a\n\rb", b"X: a\x01b", b"X: a\x07b", b"X: a\x08b", b"X: a\x0bb", b"X: a\x0cb",
            b"X: a\x1bb", b"X: a\x1fb", b"X: a\x7fb",
        ],
        request(b"@\r\n"),
    ),
}

LINES: Cases = {
    "HTTP/0.9": (b"GET /x\r\n", 400),
    "HTTP/0.9 with an empty line": (b"GET /x\r\n\r\n", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS on the plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64, 400),
    "TLS of another kind": (b"\x80\x2e\x01\x03\x01" + b"\0" * 64, 400),
    "SSH on the plain port": (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
    "PROXY protocol": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + request(), 400),
    "PROXY protocol, binary": (b"\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c" + request(), 400),
    "SMTP": (b"EHLO example.com\r\n", 400),
    "a status line": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 400),
    "method without end": (b"G" * 40 + b"\r\n", 400),
    "method beyond 32 characters": (b"M" * 33 + b" /x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "star for GET": (get(b"*"), 400),
    "a path for OPTIONS without its slash": (request(start=b"OPTIONS x HTTP/1.1"), 400),
    **each(
        "version",
        [
            b"HTTP/1.2", b"HTTP/1.9", b"HTTP/2.0", b"HTTP/2", b"HTTP/3", b"HTTP/0.9", b"HTTP/0.1", b"HTTP/1",
            b"HTTP/1.", b"HTTP/.1", b"HTTP/1.10", b"HTTP/1.1.1", b"HTTP/01.1", b"HTTP/1.01", b"HTTP/11.1",
            b"HTTP/1,1", b"HTTP/1.1 ", b"HTTP/1.1\t", b"HTTP/1.1\0", b"HTTP/1.1 x", b"HTTP/1.1\r", b"HTTP /1.1",
            b"HTTP/ 1.1", b" HTTP/1.1", b"\tHTTP/1.1", b"http/1.1", b"Http/1.1", b"HTTPS/1.1",
            b"HTTP/\xd9\xa1.1", b"ICY/1.1", b"RTSP/1.0", b"HTTP-1.1", b"HTTP", b"",
        ],
        request(start=b"GET /x @"),
    ),
    **each(
        "target",
        [
            b"", b" /x", b"\t/x", b"/a b", b"/a\tb", b"/a\x0bb", b"/a\rb", b"/a\nb", b"/a\0b", b"/a\x7fb",
            b"/\xc3\xa9", b"/a\x80", b"/a#b", b"#", b"*x", b"**", b"a/b", b"?q", b"%2Fx", b"\\x", b"h:443",
            b"[::1]:443", b"http:", b"http:/x", b"http://evil", b"http://evil/x", b"http://h/x", b"HTTP://h/x",
            b"https://h/x", b"http://u:p@h/x", b"http://h@evil/x", b"http://h:80/x", b"http://[::1]/x",
            b"http:///x", b"ftp://h/x", b"file:///etc/passwd", b"javascript:alert(1)", b"@evil/x", b".evil/x",
            b":80/x",
        ],
        get(b"@"),
    ),
    **each(
        "method",
        [
            b"", b" GET", b"\tGET", b"G@T", b"G\xc3\x89T", b"G\0T", b"\0GET", b"GET\0", b"GET\x0b", b"G\rT",
            b"G\nT", b"\x0bGET", b"GET:", b"GET/x", b'"GET"', b"(GET)", b"\xef\xbb\xbfGET", b"GET\t", b"GET ",
        ],
        request(start=b"@ /x HTTP/1.1"),
    ),
    **each("tunnel to", [b"h:443", b"/x", b"*", b"http://h/", b"h"], request(start=b"CONNECT @ HTTP/1.1")),
}

HOSTS: Cases = {
    "no Host": (request(host=b""), 400),
    "two Hosts": (request(host=b"Host: a\r\nHost: b\r\n"), 400),
    "two Hosts alike": (request(host=b"Host: h\r\nHost: h\r\n"), 400),
    "two Hosts, cases differ": (request(host=b"Host: h\r\nhOST: evil\r\n"), 400),
    "two Hosts in HTTP/1.0": (request(host=b"Host: a\r\nHost: b\r\n", start=b"GET /x HTTP/1.0"), 400),
    "a Host after a space": (request(host=b"Host : h\r\n"), 400),
    "a Host in a folded line": (request(host=b"X: y\r\n Host: h\r\n"), 400),
    **each(
        "Host",
        [
            b"", b" ", b"a b", b"a, b", b"a\tb", b"a/b", b"a/../b?c#d e", b"h/", b"h?q", b"h#f",
            b"h\\x", b"@", b"a@b", b"u:p@h", b"h@evil:80", b"http://h", b"//h", b"h:http", b"h:80:80", b"h:-80",
            b"h:+80", b"h: 80", b"h:123456", b"h:8_0", b"h:\xd9\xa1", b":80", b"[", b"[]", b"[::1",
            b"::1", b"[::1]x", b"[::1]:x", b"[evil]", b"[::1%25eth0]", b"h\0", b"h\x7f", b"h\xc3\xa9",
            b"\xe2\x84\xaa", b"h<script>", b'h"x', b"h^x", b"h`x", b"h{x}", b"h|x",
        ],
        request(host=b"Host: @\r\n"),
    ),
}

LIMITS: Cases = {
    "target without end": (b"GET /" + b"x" * 20_000, 414),
    "target too long": (get(b"/" + b"x" * 8_192), 414),
    "query too long": (get(b"/?" + b"x" * 9_000), 414),
    "line of one value too long": (request(b"X: " + b"x" * 16_384 + b"\r\n"), 431),
    "value without end": (request()[:-2] + b"X: " + b"x" * 40_000, 431),
    "name without end": (request()[:-2] + b"x" * 40_000, 431),
    "fields too many": (request(b"X: y\r\n" * 100), 431),
    "fields too many, and empty": (request(b"X:\r\n" * 2_000), 431),
    "fields too large together": (request(b"X: %b\r\n" % (b"y" * 1_000) * 20), 431),
    "cookie too large": (request(b"Cookie: " + b"c" * 20_000 + b"\r\n"), 431),
    "trailers too many": (request(CHUNKED, b"0\r\n" + b"X: y\r\n" * 101 + b"\r\n"), 431),
    "trailers without end": (request(CHUNKED, b"0\r\nX: " + b"y" * 40_000), 431),
    "extension without end": (request(CHUNKED, b"5;x=" + b"y" * 40_000), 431),
    "extensions too many": (request(CHUNKED, b"1;x\r\na\r\n1" + b";x" * 40_000), 431),
    "last chunk's extension without end": (request(CHUNKED, b"0;x=" + b"y" * 40_000), 431),
    "chunk size of zeros without end": (request(CHUNKED, b"0" * 40_000), 431),
}
