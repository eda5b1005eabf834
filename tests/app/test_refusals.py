"""What clients are told when the gateway itself says no (contract section 3), and what the log says of requests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backend import Backend, Connection
from tests.gateway import STATIC_KEY, Gateway, Reply, until

AUTH = f"Authorization: Bearer {STATIC_KEY}\r\n".encode()
BODY_BYTES_MAX = 100_000
LOG_FIELDS = [
    "timestamp",
    "level",
    "method",
    "path",
    "status",
    "duration_ms",
    "bytes",
    "client_ip",
    "request_id",
    "organization_id",
    "plan_tier",
    "service",
    "key_id",
    "backend_ms",
]


@pytest.fixture(scope="module")
def gateway(shared_backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """As everywhere, with a small REQUEST_MAX_BYTES and a second backend, so that a service can be missing."""
    folder: Path = tmp_path_factory.mktemp("gateway")
    environment = {
        "BACKEND_URLS": f"api={shared_backend.url},other={shared_backend.url}",
        "REQUEST_MAX_BYTES": str(BODY_BYTES_MAX),
        "BACKEND_TIMEOUT": "5",
    }
    with Gateway(folder, environment) as running:
        yield running


def get(target: bytes = b"/api/x", fields: bytes = AUTH) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: h\r\n%b\r\n" % (target, fields)


FORMAT = "invalid Authorization header format, expected 'Bearer <api_key>'"
REFUSALS: dict[str, tuple[bytes, int, str]] = {
    "no HTTP": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", 400, "malformed request method"),
    "another protocol": (
        b"GET / RTSP/1.0\r\n\r\n",
        400,
        "malformed request line, expected HTTP/1.1 or HTTP/1.0 after one space",
    ),
    "a target elsewhere": (
        get(b"http://evil/"),
        400,
        "malformed request target, expected a path that starts with '/'",
    ),
    "a tunnel": (b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", 400, "CONNECT is not supported"),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400, "exactly one Host header is required"),
    "a strange Host": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "malformed Host header"),
    "a strange coding": (
        b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
        "unsupported Transfer-Encoding",
    ),
    "no credential": (get(fields=b""), 401, "missing Authorization header"),
    "another scheme": (get(fields=b"Authorization: Basic abc\r\n"), 401, FORMAT),
    "no key": (get(fields=b"Authorization: Bearer \r\n"), 401, FORMAT),
    "an unknown key": (get(fields=b"Authorization: Bearer sk_test_" + b"0" * 32 + b"\r\n"), 403, "invalid API key"),
    "an unknown service": (get(b"/nowhere/x?y=z"), 404, "service 'nowhere' not found"),
    "a body too large": (
        b"POST /api HTTP/1.1\r\nHost: h\r\n" + AUTH + b"Content-Length: 100001\r\n\r\n",
        413,
        "request body too large",
    ),
    "a target too long": (get(b"/" + b"x" * 9_000), 414, "request target too long"),
    "a head too large": (get(fields=b"X: " + b"x" * 20_000 + b"\r\n"), 431, "request headers too large"),
    "too many fields": (get(fields=b"X: y\r\n" * 200), 431, "request headers too large"),
}


def check_envelope(reply: Reply, status: int, message: str) -> None:
    """The envelope, field by field, and what every answer carries."""
    assert reply.status == status
    body = reply.json()
    assert list(body) == ["error", "timestamp", "request_id"]
    assert body["error"] == {"code": status, "message": message}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["timestamp"])
    assert body["request_id"] == reply["X-Request-ID"] != ""
    assert reply["Content-Type"] == "application/json"
    assert reply["Content-Length"] == str(len(reply.body))
    assert reply.all("WWW-Authenticate") == (["Bearer"] if status == 401 else [])


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_have_the_promised_words(case: str, gateway: Gateway, backend: Backend) -> None:
    """Status, message, fields and log line of each refusal are as promised; the backend hears nothing of it."""
    data, status, message = REFUSALS[case]
    reply = gateway.ask(data)
    check_envelope(reply, status, message)
    line = gateway.access(reply["X-Request-ID"])
    assert list(line) == LOG_FIELDS
    assert (line["status"], line["level"], line["bytes"]) == (status, "warn", len(reply.body))
    assert line["client_ip"] == "127.0.0.1"
    assert line["backend_ms"] is None
    assert backend.requests == []


def test_a_body_that_grows_too_large_is_refused_readably(gateway: Gateway, backend: Backend) -> None:
    """A chunked upload past the limit gets its 413 while the client still sends; the backend gets no whole request."""
    head = b"POST /api HTTP/1.1\r\nHost: h\r\n" + AUTH + b"Transfer-Encoding: chunked\r\n\r\n"
    with gateway.client() as client:
        client.send(head + b"1000\r\n" + b"x" * 4096 + b"\r\n")
        client.send(b"".join(b"10000\r\n" + b"x" * 65_536 + b"\r\n" for _ in range(30)))
        reply = client.reply()
        check_envelope(reply, 413, "request body too large")
        assert reply["Connection"] == "close"
        assert client.rest() == b""
    assert backend.requests == []


def test_a_body_of_the_greatest_size_passes(gateway: Gateway, backend: Backend) -> None:
    """The limit itself is allowed, by length and in chunks."""
    body = b"x" * BODY_BYTES_MAX
    start = b"POST /api HTTP/1.1\r\nHost: h\r\n" + AUTH
    with gateway.client() as client:
        assert client.send(start + b"Content-Length: %d\r\n\r\n" % len(body) + body).reply().status == 200
        chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        assert client.send(start + chunked).reply().status == 200


# --- the log ---


def test_a_request_is_one_line_in_the_log(gateway: Gateway, backend: Backend) -> None:
    """All the promised fields in their order, with what is known; the key and the query nowhere."""
    reply = gateway.get("/api/things?secret=hunter2")
    line = gateway.access(reply["X-Request-ID"])
    assert list(line) == LOG_FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
    assert line["duration_ms"] >= line["backend_ms"] > 0
    expected = {"level": "info", "method": "GET", "path": "/api/things", "status": 200, "bytes": 2, "service": "api"}
    expected |= {"organization_id": "org_1", "plan_tier": "premium", "client_ip": "127.0.0.1", "key_id": None}
    assert {name: line[name] for name in expected} == expected
    assert len(gateway.log(request_id=reply["X-Request-ID"])) == 1
    assert "hunter2" not in gateway.output
    assert STATIC_KEY not in gateway.output


def test_a_key_in_the_path_is_not_logged(gateway: Gateway, backend: Backend) -> None:
    """Also a key that stands where it should not is kept out of the log."""
    key = "sk_live_" + "0123456789abcdef" * 2
    reply = gateway.get(f"/api/{key}/x")
    assert gateway.access(reply["X-Request-ID"])["path"].startswith("/api/sk_live_")
    assert key not in gateway.output


def test_a_client_that_hangs_up_is_logged(gateway: Gateway, backend: Backend) -> None:
    """A request whose client left before the answer has its line: status 499, as far as it got."""

    def wait(connection: Connection) -> None:
        connection.read()
        connection.more()

    backend.script = wait
    with gateway.client() as client:
        client.send(get(b"/api/left-early"))
        until(lambda: backend.requests, "the request to arrive")
    line = until(lambda: gateway.log(path="/api/left-early"), "the log line")[0]
    assert (line["status"], line["bytes"], line["service"], line["level"]) == (499, 0, "api", "warn")
    assert line["organization_id"] == "org_1"


def test_every_request_of_a_connection_has_its_line(gateway: Gateway, backend: Backend) -> None:
    """Pipelined requests are logged one by one, each under its own id."""
    with gateway.client() as client:
        client.send(get(b"/api/many") * 20)
        ids = {client.reply()["X-Request-ID"] for _ in range(20)}
    assert len(ids) == 20
    lines = until(lambda: [found for found in [gateway.log(path="/api/many")] if len(found) == 20], "20 lines")[0]
    assert {line["request_id"] for line in lines} == ids


# --- who asks ---


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Authorization: Bearer %b\r\n", 200),
        (b"authorization: bearer %b\r\n", 200),
        (b"AUTHORIZATION: BEARER %b\r\n", 200),
        (b"Authorization:Bearer   %b  \r\n", 200),
        (b"Authorization: Bearer\t%b\r\n", 401),
        (b"Authorization: Bearer%b\r\n", 401),
        (b"Authorization: Bearer\r\n", 401),
        (b"Authorization:\r\n", 401),
        (b"Authorization: %b\r\n", 401),
        (b"Authorization: Bearer %b x\r\n", 401),
        (b"Authorization: Token %b\r\n", 401),
        (b"Authorization: Bearer %b\r\nAuthorization: Bearer x\r\n", 401),
        (b"Authorization: Bearer %b,Bearer x\r\n", 401),
        (b"Authorization: Bearer \xff%b\r\n", 403),
        (b"Proxy-Authorization: Bearer %b\r\n", 401),
        (b"X-API-Key: %b\r\n", 401),
    ],
)
def test_the_credential_is_read_as_http_has_it(fields: bytes, status: int, gateway: Gateway, backend: Backend) -> None:
    """The scheme in any case, spaces around the key; one field with one key, and nothing else."""
    fields = fields.replace(b"%b", STATIC_KEY.encode())
    assert gateway.ask(get(fields=fields)).status == status
