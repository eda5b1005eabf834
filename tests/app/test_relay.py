"""What a client gets: the backend's answer as it is, as it comes, in bounded memory."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.backend import Backend, Connection, answer
from tests.gateway import STATIC_KEY, Client, Gateway, Reply, until

AUTH = f"Host: g\r\nAuthorization: Bearer {STATIC_KEY}\r\n".encode()
GET = b"GET /x HTTP/1.1\r\n" + AUTH + b"\r\n"
HEAD = b"HEAD /x HTTP/1.1\r\n" + AUTH + b"\r\n"
GET_1_0 = b"GET /x HTTP/1.0\r\n" + AUTH + b"\r\n"
OURS = ("x-request-id", "x-ratelimit", "ratelimit")
MEGABYTE = 1024 * 1024
Script = Callable[[Connection], None]


def theirs(reply: Reply) -> list[tuple[str, str]]:
    """The fields that are not ours, in order."""
    return [field for field in reply.fields if not field[0].lower().startswith(OURS)]


def once(data: bytes, *more: bytes) -> Script:
    """A script that answers one request and then closes. `more`: each in a write of its own, a moment later."""

    def script(connection: Connection) -> None:
        connection.read()
        for piece in (data, *more):
            connection.send(piece)
            time.sleep(0.02 if more else 0)  # so that the pieces arrive as pieces

    return script


def resident_bytes(gateway: Gateway) -> int:
    status = Path(f"/proc/{gateway.worker_pids[0]}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found.group(1)) * 1024


def test_an_answer_passes_as_it_is(gateway: Gateway, backend: Backend) -> None:
    """Status, reason, fields (their case, order and repetition) and body are the backend's."""
    backend.script = answer(
        b"HTTP/1.1 418 I'm a   teapot\r\nset-COOKIE: a=1\r\nX-A: 1\r\nSet-Cookie: b=2; Path=/\r\nx-latin: \xe9\r\n"
        b"Set-Cookie: c=3\r\nServer: s\r\nDate: then\r\nContent-Length: 3\r\n\r\na\0b"
    )
    reply = gateway.ask(GET)
    assert (reply.status, reply.reason, reply.body) == (418, b"I'm a   teapot", b"a\0b")
    assert theirs(reply) == [
        ("set-COOKIE", "a=1"),
        ("X-A", "1"),
        ("Set-Cookie", "b=2; Path=/"),
        ("x-latin", "\xe9"),
        ("Set-Cookie", "c=3"),
        ("Server", "s"),
        ("Date", "then"),
        ("Content-Length", "3"),
    ]


@pytest.mark.parametrize(
    ("line", "reason"), [(b"HTTP/1.1 200", b""), (b"HTTP/1.1 599 \xe9", b"\xe9"), (b"HTTP/1.0 200 K", b"K")]
)
def test_strange_but_valid_status_lines_pass(line: bytes, reason: bytes, gateway: Gateway, backend: Backend) -> None:
    """No reason, one beyond ASCII, HTTP/1.0: the client gets HTTP/1.1 with the same status and reason."""
    backend.script = once(line + b"\r\nContent-Length: 0\r\n\r\n")
    reply = gateway.ask(GET)
    assert reply.head.startswith(b"HTTP/1.1 " + line[9:12] + b" " + reason + b"\r\n")


def test_limits_and_ids_are_ours(gateway: Gateway, backend: Backend) -> None:
    """A backend's own limits, request id and hop-by-hop fields are replaced by ours or dropped; Retry-After is kept."""
    backend.script = answer(
        b"HTTP/1.1 429 Too Many\r\nX-RateLimit-Limit-Minute: 1\r\nx-ratelimit-reset: 1\r\nRateLimit: 1\r\n"
        b"RateLimit-Policy: 1\r\nX-Request-ID: theirs\r\nRetry-After: 9\r\nConnection: X-Hop, keep-alive\r\n"
        b"X-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2\r\nProxy-Authenticate: x\r\nContent-Length: 0\r\n\r\n"
    )
    reply = gateway.ask(GET)
    assert theirs(reply) == [("Retry-After", "9"), ("Content-Length", "0")]
    assert reply["X-RateLimit-Limit-Minute"] == "10000"
    assert reply["X-Request-ID"] != "theirs"
    assert len(reply.all("RateLimit")) == len(reply.all("RateLimit-Policy")) == 1


def test_browsers_are_told_which_fields_they_may_read(gateway: Gateway, backend: Backend) -> None:
    """Where the backend shares its answer across origins, ours are exposed too."""
    backend.script = answer(b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n")
    assert "X-RateLimit-Remaining-Minute" in gateway.ask(GET)["Access-Control-Expose-Headers"]


def test_an_offer_to_upgrade_is_no_upgrade(gateway: Gateway, backend: Backend) -> None:
    """A 200 that advertises h2 (Apache does) is an ordinary answer."""
    backend.script = answer(
        b"HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade, Keep-Alive\r\nContent-Length: 2\r\n\r\nok"
    )
    with gateway.client() as client:
        assert [client.send(GET).reply().body for _ in range(3)] == [b"ok"] * 3


@pytest.mark.parametrize(
    "head", [b"204 No Content", b"204 No Content\r\nContent-Length: 0", b"304 Not\r\nETag: x\r\nContent-Length: 99"]
)
def test_answers_without_a_body(head: bytes, gateway: Gateway, backend: Backend) -> None:
    """204 and 304 have no body; 304 keeps the length that it states, 204 may not state one; the connection goes on."""
    backend.script = answer(b"HTTP/1.1 " + head + b"\r\n\r\n")
    with gateway.client() as client:
        for _ in range(2):
            reply = client.send(GET).reply()
            assert reply.all("Content-Length") == (["99"] if b"304" in head else [])
            assert reply.all("Transfer-Encoding") == []


@pytest.mark.parametrize("framing", [b"Content-Length: 99\r\n", b"Transfer-Encoding: chunked\r\n", b""])
def test_head_states_a_body_and_has_none(framing: bytes, gateway: Gateway, backend: Backend) -> None:
    """The answer to HEAD keeps the length that GET would have; what comes next on the connection is the next answer."""
    backend.script = answer(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n")
    with gateway.client() as client:
        for _ in range(2):
            reply = client.send(HEAD).reply("HEAD")
            assert reply.all("Content-Length") == (["99"] if b"99" in framing else [])
        backend.drop_idle()
        backend.script = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert client.send(GET).reply().body == b"ok"


def test_interim_answers_are_passed_on(gateway: Gateway, backend: Backend) -> None:
    """100 and 103 reach the client before the final answer, in order, with their fields."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nConnection: x\r\nContent-Length: 3\r\n\r\n"
    backend.script = answer(
        b"HTTP/1.1 100 Continue\r\n\r\n" + hints + hints + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )
    reply = gateway.ask(GET)
    expected = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload"
    assert reply.interim == [b"HTTP/1.1 100 Continue", expected, expected]
    assert (reply.status, reply.body) == (200, b"ok")


def test_http_1_0_knows_no_interim_answers(gateway: Gateway, backend: Backend) -> None:
    """A client of HTTP/1.0 gets the final answer alone (RFC 9110 section 15.2)."""
    backend.script = answer(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    reply = gateway.ask(GET_1_0)
    assert (reply.status, reply.interim, reply.body) == (200, [], b"ok")


@pytest.mark.parametrize(
    "storm", [b"HTTP/1.1 103 E\r\n\r\n" * 5_000, b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"]
)
def test_a_storm_of_interim_answers_ends(storm: bytes, gateway: Gateway, backend: Backend) -> None:
    """Endless 1xx, and a switch of protocols that nobody asked for, become 502."""
    backend.script = once(storm)
    assert gateway.ask(GET).status == 502


def test_a_body_until_the_end_of_the_connection(gateway: Gateway, backend: Backend) -> None:
    """An answer without a length becomes chunked for HTTP/1.1, which goes on, and ends by the close for HTTP/1.0."""
    backend.script = once(b"HTTP/1.1 200 OK\r\n\r\nuntil", b" the end")
    with gateway.client() as client:
        for _ in range(2):
            reply = client.send(GET).reply()
            assert (reply["Transfer-Encoding"], reply.body, reply.is_whole) == ("chunked", b"until the end", True)
    reply = gateway.ask(GET_1_0)
    assert (reply.body, reply.all("Transfer-Encoding"), reply["Connection"]) == (b"until the end", [], "close")


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\n"


def test_chunked_answers_and_trailers(gateway: Gateway, backend: Backend) -> None:
    """Chunked stays chunked, trailers follow, less those that may not come late."""
    backend.script = answer(CHUNKED + b"X-Sum: 9\r\nX-RateLimit-Limit-Minute: 1\r\nX-Request-ID: 1\r\n\r\n")
    with gateway.client() as client:
        for _ in range(2):
            reply = client.send(GET).reply()
            assert (reply.body, reply.is_whole, client.trailers) == (b"abcdefgh", True, [b"X-Sum: 9"])
            assert reply["Trailer"] == "X-Sum"


def test_a_trailer_that_says_close(gateway: Gateway, backend: Backend) -> None:
    """`Connection: close` among the trailers ends there, and the next request goes over a new connection."""
    backend.script = answer(CHUNKED + b"Connection: close\r\n\r\n")
    with gateway.client() as client:
        for _ in range(2):
            reply = client.send(GET).reply()
            assert (reply.status, reply.body, reply.is_whole, client.trailers) == (200, b"abcdefgh", True, [])


def test_chunked_answers_for_http_1_0(gateway: Gateway, backend: Backend) -> None:
    """A client that knows no chunks gets the bytes alone, and the close as their end."""
    backend.script = answer(CHUNKED + b"\r\n")
    reply = gateway.ask(GET_1_0)
    assert (reply.body, reply.all("Transfer-Encoding")) == (b"abcdefgh", [])


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b""])
def test_nothing_is_held_back(framing: bytes, gateway: Gateway, backend: Backend) -> None:
    """The head is at the client before there is a body, and each byte before the backend sends the next."""
    go = threading.Semaphore(0)

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + framing + b"\r\n")
        for byte in (b"a", b"b", b"c"):
            go.acquire(timeout=5)
            connection.send(b"1\r\n%b\r\n" % byte if b"chunked" in framing else byte)
        connection.send(b"0\r\n\r\n" if b"chunked" in framing else b"")

    backend.script = script
    with gateway.client() as client:
        client.send(GET)
        assert b" 200 OK" in (client._until(b"\r\n\r\n") or b"")
        for byte in (b"a", b"b", b"c"):
            go.release()
            expected = byte if b"Length" in framing else b"1\r\n%b\r\n" % byte
            assert client._exactly(len(expected)) == (expected, True)


def test_fifty_megabytes_down_in_flat_memory(gateway: Gateway, backend: Backend) -> None:
    """A large answer to a client that stops reading: the backend is held back, memory stays, nothing is lost."""
    size, sent = 50 * MEGABYTE, [0]

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        block = bytes(range(256)) * 256
        while sent[0] < size:
            connection.send(block)
            sent[0] += len(block)

    backend.script = script
    before = resident_bytes(gateway)
    with gateway.client() as client:
        client.send(GET)
        stalled = _stalls(sent)
        assert stalled < 30 * MEGABYTE  # what kernels buffer, and no more
        assert resident_bytes(gateway) - before < 8 * MEGABYTE
        assert b"Content-Length: %d" % size in (client._until(b"\r\n\r\n") or b"")
        assert _received(client, size) == hashlib.sha256(bytes(range(256)) * (size // 256)).digest()
    assert resident_bytes(gateway) - before < 8 * MEGABYTE


@pytest.mark.parametrize("start_line", [b"GET /x HTTP/1.1\r\nConnection: close\r\n", b"GET /x HTTP/1.0\r\n"])
def test_a_slow_reader_gets_the_end_of_a_last_answer(start_line: bytes, gateway: Gateway, backend: Backend) -> None:
    """A connection that ends with its answer does not end before the client has read it, however late it begins."""
    body = bytes(6 * MEGABYTE)
    backend.script = once(b"HTTP/1.1 200 OK\r\n\r\n" + body)
    with gateway.client() as client:
        client.send(start_line + AUTH + b"\r\n")
        time.sleep(0.5)  # the client's own slowness
        reply = client.reply()
    assert (reply.is_whole, len(reply.body)) == (True, len(body))


def _received(client: Client, size: int) -> bytes:
    """The digest of the next `size` bytes."""
    digest = hashlib.sha256(client.buffer)
    size -= len(client.buffer)
    while size and (data := client.socket.recv(min(size, MEGABYTE))):
        digest.update(data)
        size -= len(data)
    return digest.digest()


def _stalls(count: list[int]) -> int:
    """Waits until the count stands still for a while, and returns it."""
    seen, since = count[0], time.monotonic()
    while time.monotonic() - since < 0.3:
        if count[0] != seen:
            seen, since = count[0], time.monotonic()
        time.sleep(0.02)
    return seen


@pytest.mark.parametrize("is_chunked", [False, True])
def test_fifty_megabytes_up_in_flat_memory(is_chunked: bool, gateway: Gateway, backend: Backend) -> None:
    """A large upload to a backend that does not read at first: the client is held back, memory stays, all arrives."""
    size, sent, go, received = 50 * MEGABYTE, [0], threading.Event(), [0]

    def script(connection: Connection) -> None:
        connection.read_head()
        go.wait(10)
        received[0] = len(connection.buffer)
        while received[0] < size + (10 if is_chunked else 0):
            connection.buffer = b""
            if not connection.more():
                return
            received[0] += len(connection.buffer)
            if is_chunked and connection.buffer.endswith(b"\r\n0\r\n\r\n"):
                break
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    backend.script = script
    before = resident_bytes(gateway)
    with gateway.client() as client:
        writer = threading.Thread(target=_upload, args=(client, size, is_chunked, sent))
        writer.start()
        assert _stalls(sent) < 30 * MEGABYTE
        assert resident_bytes(gateway) - before < 8 * MEGABYTE
        go.set()
        assert client.reply().status == 200
        writer.join()
    assert received[0] >= size
    assert resident_bytes(gateway) - before < 8 * MEGABYTE


def _upload(client: Client, size: int, is_chunked: bool, sent: list[int]) -> None:
    framing = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % size
    client.send(b"POST /x HTTP/1.1\r\n" + AUTH + framing + b"\r\n\r\n")
    block = bytes(65_536)
    for _ in range(size // len(block)):
        client.send(b"10000\r\n%b\r\n" % block if is_chunked else block)
        sent[0] += len(block)
    if is_chunked:
        client.send(b"0\r\n\r\n")


def test_answer_and_upload_at_the_same_time(gateway: Gateway, backend: Backend) -> None:
    """A backend that answers while it reads (an echo) is relayed in both directions at once."""

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            if connection.buffer:
                connection.send(connection.buffer)
                if connection.buffer.endswith(b"0\r\n\r\n"):
                    return
            connection.buffer = b""
            if not connection.more():
                return

    backend.script = script
    with gateway.client() as client:
        client.send(b"POST /x HTTP/1.1\r\n" + AUTH + b"Transfer-Encoding: chunked\r\n\r\n")
        assert b" 200 OK" in (client._until(b"\r\n\r\n") or b"")
        for number in range(5):
            client.send(b"2\r\n%02d\r\n" % number)
            assert client._exactly(7) == (b"2\r\n%02d\r\n" % number, True)
        client.send(b"0\r\n\r\n")
        assert client._exactly(5) == (b"0\r\n\r\n", True)


def test_an_early_answer_ends_an_upload(gateway: Gateway, backend: Backend) -> None:
    """A backend that refuses before the upload is over: the client gets that answer, and the connection ends."""

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        connection.more()

    backend.script = script
    with gateway.client() as client:
        client.send(b"POST /x HTTP/1.1\r\n" + AUTH + b"Content-Length: 1000000\r\n\r\nbegin")
        reply = client.reply()
        assert (reply.status, reply.body) == (403, b"no")
        assert client.is_closed()
    assert gateway.get("/health/live").status == 200


def test_a_client_that_waits_for_100(gateway: Gateway, backend: Backend) -> None:
    """Expect: 100-continue reaches the backend, its 100 reaches the client, and then the body flows."""

    def script(connection: Connection) -> None:
        connection.read_head()
        assert b"Expect: 100-continue\r\n" in connection.head
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.read_body()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + connection.body)

    backend.script = script
    with gateway.client() as client:
        client.send(b"POST /x HTTP/1.1\r\n" + AUTH + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert client._until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
        assert client.send(b"hello").reply().body == b"hello"


def test_the_log_counts_the_bytes_of_the_body(gateway: Gateway, backend: Backend) -> None:
    """The access line of a relayed answer: status, bytes of the body without framing, service, time at the backend."""
    backend.script = answer(CHUNKED + b"\r\n")
    reply = gateway.ask(GET)
    line = gateway.access(reply["X-Request-ID"])
    assert (line["status"], line["bytes"], line["service"]) == (200, 8, "api")
    assert 0 < line["backend_ms"] <= line["duration_ms"]
    until(lambda: gateway.log(request_id=reply["X-Request-ID"]) == [line], "exactly one line")
