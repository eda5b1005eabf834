"""What becomes of a request when its backend fails: 502 or 504 before the head, a visibly broken answer after it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from tests.app.test_relay import AUTH, GET, GET_1_0, HEAD, once
from tests.backend import OK, Backend, Connection, answer_ok
from tests.gateway import Gateway, Reply, until

HEAD_OK = b"HTTP/1.1 200 OK\r\n"
POST_CHUNKED = b"POST /x HTTP/1.1\r\n" + AUTH + b"Transfer-Encoding: chunked\r\n\r\n"


def is_refusal(reply: Reply, status: int) -> bool:
    """The contract's answer, limits included, with nothing of the backend in it."""
    message = {502: "backend service unavailable", 504: "backend service timeout"}[status]
    assert (reply.status, reply.json()["error"]) == (status, {"code": status, "message": message})
    assert reply["X-RateLimit-Limit-Minute"]
    return True


def reset(sock: socket.socket) -> None:
    """Closes with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


MALFORMED = {
    "garbage": b"\x16\x03\x01\x02\x00garbage\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "nothing": b"",
    "half a head": HEAD_OK + b"Content-Le",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "status below 100": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    "two lengths": HEAD_OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "two different lengths": HEAD_OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "a list of lengths": HEAD_OK + b"Content-Length: 2, 2\r\n\r\nok",
    "negative length": HEAD_OK + b"Content-Length: -2\r\n\r\nok",
    "both framings": HEAD_OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both framings, other order": HEAD_OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "coding gzip": HEAD_OK + b"Transfer-Encoding: gzip\r\n\r\nok",
    "coding gzip, chunked": HEAD_OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding gzip for 103": b"HTTP/1.1 103 Hints\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" + OK,
    "coding gzip for 204": b"HTTP/1.1 204 No\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "coding chunked twice": HEAD_OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF in a value": HEAD_OK + b"X: y\nSet-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nok",
    "bare CR in a value": HEAD_OK + b"X: y\rSet-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a value": HEAD_OK + b"X: y\0z\r\nContent-Length: 2\r\n\r\nok",
    "space before the colon": HEAD_OK + b"Content-Length : 2\r\n\r\nok",
    "an interim answer too many": b"HTTP/1.1 103 Hints\r\n\r\n" * 17 + OK,
    "interim answers without end": b"HTTP/1.1 103 Hints\r\n\r\n" * 50_000,
    "an interim answer without end": b"HTTP/1.1 103 Hints\r\nX: " + b"y" * 1_000_000,
    "protocols switched unasked": b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n" + OK,
    "status 000": b"HTTP/1.1 000 Zero\r\nContent-Length: 2\r\n\r\nok",
    "a length beyond 2^64": HEAD_OK + b"Content-Length: 18446744073709551618\r\n\r\nok",
    "a length with a sign": HEAD_OK + b"Content-Length: +2\r\n\r\nok",
    "a coding in quotes": HEAD_OK + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "a coding after a vertical tab": HEAD_OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "bare LF everywhere": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "a name with a space": HEAD_OK + b"X Y: z\r\nContent-Length: 2\r\n\r\nok",
    "a name beyond ASCII": HEAD_OK + b"X\xc3\xa9: z\r\nContent-Length: 2\r\n\r\nok",
    **{
        f"{control:#04x} in a value": HEAD_OK + b"X: a%cb\r\nContent-Length: 2\r\n\r\nok" % control
        for control in (*range(9), *range(10, 32), 127)
    },
    **{
        f"{control!r} in the reason": b"HTTP/1.1 200 O%bK\r\nContent-Length: 2\r\n\r\nok" % control
        for control in (b"\0", b"\x01", b"\x0b", b"\x1b", b"\x7f", b"\r", b"\n")
    },
    "folded line": HEAD_OK + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "no name": HEAD_OK + b": b\r\nContent-Length: 2\r\n\r\nok",
    "too many fields": HEAD_OK + b"X: y\r\n" * 300 + b"\r\n",
    "an endless field": HEAD_OK + b"X: " + b"y" * 1_000_000,
    "an endless reason": b"HTTP/1.1 200 " + b"y" * 1_000_000,
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_answer_is_a_502(case: str, gateway: Gateway, backend: Backend) -> None:
    """What is no HTTP/1 answer is not passed on in part either; the next request is served."""
    backend.script = once(MALFORMED[case])
    assert is_refusal(gateway.ask(GET), 502)
    backend.script = answer_ok
    assert gateway.ask(GET).body == b"ok"


CUT_SHORT = {
    "length": (b"Content-Length: 10\r\n\r\n", b"hello"),
    "chunk": (b"Transfer-Encoding: chunked\r\n\r\n", b"a\r\nhello"),
    "between chunks": (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n"),
    "in the trailers": (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\nX: y\r\n"),
    "framing in the trailers": (
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"5\r\nhello\r\n0\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    ),
    "bad chunk size": (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\nxyz\r\n"),
    "bad chunk end": (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n"),
    "endless trailer": (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\nX: " + b"y" * 1_000_000),
    "endless extension": (b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n1;x=" + b"y" * 1_000_000),
}


@pytest.mark.parametrize("request_head", [GET, GET_1_0], ids=["1.1", "1.0"])
@pytest.mark.parametrize("ending", ["fin", "rst"])
@pytest.mark.parametrize("case", CUT_SHORT)
def test_an_answer_that_breaks_off_never_looks_whole(
    case: str, ending: str, request_head: bytes, gateway: Gateway, backend: Backend
) -> None:
    """A backend that dies in its body: the client sees a broken answer; where only the close ends it, a reset."""
    framing, body = CUT_SHORT[case]
    has_arrived = threading.Event()

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(HEAD_OK + framing)
        connection.send(body)
        if ending == "rst":
            has_arrived.wait(10)  # so that the reset does not overtake what was sent
            reset(connection.socket)

    backend.script = script
    with gateway.client() as client:
        client.send(request_head)
        head = client._until(b"\r\n\r\n") or b""
        assert b" 200 OK" in head
        while b"hello" not in client.buffer:
            assert client._more()
        has_arrived.set()
        if request_head is GET:
            is_whole = client._body(head, "GET")[1]
        elif b"Content-Length" in head:
            is_whole = client._exactly(10)[1]
        else:
            is_whole = not _ends_with_reset(client.socket)
        assert not is_whole
        client.rest()
    request_id = head.partition(b"X-Request-ID: ")[2].split(b"\r\n")[0].decode()
    until(lambda: gateway.log(request_id=request_id, level="warn"), "the log to say that the answer was cut")


def _ends_with_reset(sock: socket.socket) -> bool:
    try:
        while sock.recv(65_536):
            pass
    except ConnectionResetError:
        return True
    return False


SECOND = {
    "a second answer": OK + b"HTTP/1.1 500 Poison\r\nContent-Length: 6\r\n\r\npoison",
    "the head of a second answer": OK + b"HTTP/1.1 500 Poison\r\nContent-Length: 60\r\n\r\n",
    "more body than was said": OK + b"poison",
    "an interim answer afterwards": OK + b"HTTP/1.1 103 Poison\r\n\r\n",
    "a body for 204": b"HTTP/1.1 204 No\r\n\r\npoison",
    "a body for 304": b"HTTP/1.1 304 No\r\nContent-Length: 6\r\n\r\npoison",
    "bytes after chunks": HEAD_OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\npoison",
}


@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("case", SECOND)
def test_bytes_after_an_answer_poison_nothing(case: str, is_late: bool, gateway: Gateway, backend: Backend) -> None:
    """The first answer passes as it was, what follows is dropped with the connection, the next request is clean."""
    data = SECOND[case]
    first = data.partition(b"poison")[0] if is_late else data
    was_read, is_dropped = threading.Event(), threading.Event()

    def script(connection: Connection) -> None:
        while connection.read():
            connection.send(first)
            if is_late and was_read.wait(10):
                connection.send(b"HTTP/1.1 500 Poison\r\nContent-Length: 6\r\n\r\npoison")
        is_dropped.set()

    backend.script = script
    with gateway.client() as client:
        reply = client.send(GET).reply()
        assert reply.status == int(data[9:12])
        assert reply.reason in (b"OK", b"No")
        assert reply.body in (b"ok", b"")
        backend.script = answer_ok
        was_read.set()
        assert not is_late or is_dropped.wait(10)
        for _ in range(3):
            assert client.send(GET).reply().body == b"ok"


@pytest.mark.parametrize("extra", [b"body", OK, b"HTTP/1.1 500 Poison\r\nContent-Length: 0\r\n\r\n"])
def test_a_body_for_head_poisons_nothing(extra: bytes, gateway: Gateway, backend: Backend) -> None:
    """HEAD is answered with the head, and what the backend sends after it goes nowhere."""
    backend.script = once(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-First: 1\r\n\r\n" + extra)
    with gateway.client() as client:
        reply = client.send(HEAD).reply("HEAD")
        assert (reply.status, reply["X-First"]) == (200, "1")
        backend.script = answer_ok
        assert client.send(GET).reply().body == b"ok"


def test_a_backend_that_resets(gateway: Gateway, backend: Backend) -> None:
    """A reset before the head is a 502; the request is not sent a second time."""

    def script(connection: Connection) -> None:
        connection.read()
        reset(connection.socket)

    backend.script = script
    assert is_refusal(gateway.ask(GET), 502)
    assert len(backend.requests) == 1


def test_a_backend_that_is_not_there(tmp_path: Path) -> None:
    """A refused connection is a 502, at once; an unknown host name too. The log says why, the client is not told."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    urls = f"a=http://127.0.0.1:{port},b=http://nowhere.invalid"
    with Gateway(tmp_path / "g", {"BACKEND_URLS": urls}) as gateway:
        for target in ("/a", "/b"):
            reply = gateway.get(target)
            assert is_refusal(reply, 502)
            why = {"request_id": reply["X-Request-ID"], "service": target[1:], "level": "warn"}
            until(lambda why=why: gateway.log(**why), "the log to say why")  # type: ignore[misc]


def test_a_connection_that_takes_too_long(tmp_path: Path) -> None:
    """A backend whose accept queue is full: 504 after BACKEND_CONNECT_TIMEOUT."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        environment = {
            "BACKEND_URLS": f"a=http://127.0.0.1:{full.getsockname()[1]}",
            "BACKEND_CONNECT_TIMEOUT": "0.3",
        }
        with Gateway(tmp_path / "g", environment) as gateway:
            began = time.monotonic()
            assert is_refusal(gateway.get("/x"), 504)
            assert 0.3 <= time.monotonic() - began < 2


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_silent_backend_is_a_504(method: str, gateway: Gateway, backend: Backend) -> None:
    """No byte for BACKEND_TIMEOUT (2 s): 504 soon after it, and the connection to the backend is closed."""
    closed = threading.Event()

    def script(connection: Connection) -> None:
        connection.read()
        connection.more()
        closed.set()

    backend.script = script
    began = time.monotonic()
    body = b"" if method == "GET" else b"Content-Length: 2\r\n\r\nhi"
    reply = gateway.ask(f"{method} /x HTTP/1.1\r\n".encode() + AUTH + (body or b"\r\n"))
    assert is_refusal(reply, 504)
    assert 2 <= time.monotonic() - began < 10
    assert closed.wait(10)


def test_a_backend_that_falls_silent_in_its_answer(gateway: Gateway, backend: Backend) -> None:
    """Silence in the middle ends the answer after BACKEND_TIMEOUT, visibly; a byte now and then keeps it going."""

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(HEAD_OK + b"Content-Length: 10\r\n\r\n")
        for _ in range(3):
            time.sleep(1)  # half the time-out each: together more than it
            connection.send(b"x")
        connection.more()

    backend.script = script
    began = time.monotonic()
    reply = gateway.ask(GET)
    assert (reply.status, reply.body, reply.is_whole) == (200, b"xxx", False)
    assert 5 <= time.monotonic() - began < 15


def test_a_slow_upload_is_not_the_backends_fault(gateway: Gateway, backend: Backend) -> None:
    """While the client takes its time, the backend's clock stands still."""
    backend.script = answer_ok
    with gateway.client() as client:
        client.send(b"POST /x HTTP/1.1\r\n" + AUTH + b"Content-Length: 3\r\n\r\na")
        for piece in (b"b", b"c"):
            time.sleep(1.3)  # together longer than BACKEND_TIMEOUT
            client.send(piece)
        assert client.reply().body == b"ok"


def test_both_sides_silent_after_the_head(gateway: Gateway, backend: Backend) -> None:
    """A backend that has begun to answer must go on within BACKEND_TIMEOUT, even while the upload stands still."""

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(HEAD_OK + b"Transfer-Encoding: chunked\r\n\r\n")
        connection.more()
        connection.more()

    backend.script = script
    with gateway.client() as client:
        began = time.monotonic()
        reply = client.send(POST_CHUNKED).reply()
        assert (reply.status, reply.is_whole) == (200, False)
        assert 2 <= time.monotonic() - began < 10


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls_backend(authority: trustme.CA, name: str) -> Backend:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return Backend(tls=context)


@pytest.fixture
def tls_gateway(authority: trustme.CA, tmp_path: Path) -> Iterator[Callable[[str], Gateway]]:
    """Starts a gateway that trusts the authority, in front of one backend."""
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    with contextlib.ExitStack() as stack:
        yield lambda url: stack.enter_context(
            Gateway(tmp_path / "g", {"BACKEND_URLS": f"a={url}", "SSL_CERT_FILE": str(bundle), "BACKEND_TIMEOUT": "2"})
        )


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_tls_backend(name: str, authority: trustme.CA, tls_gateway: Callable[[str], Gateway]) -> None:
    """https backends are spoken to over TLS that is verified, on connections that are kept."""
    with tls_backend(authority, name) as backend:
        gateway = tls_gateway(f"https://{name}:{backend.port}")
        assert [gateway.get("/x").body for _ in range(3)] == [b"ok"] * 3
        assert backend.accepted == 1


@pytest.mark.parametrize("case", ["another name", "another authority", "plain text", "plain http"])
def test_a_tls_backend_that_cannot_be_trusted(
    case: str, authority: trustme.CA, tls_gateway: Callable[[str], Gateway]
) -> None:
    """A certificate for another name or of another authority, and no TLS at all, are a 502; no request is sent."""
    backends = {
        "another name": lambda: tls_backend(authority, "other.example"),
        "another authority": lambda: tls_backend(trustme.CA(), "localhost"),
        "plain text": lambda: Backend(lambda connection: connection.send(OK)),
        "plain http": lambda: tls_backend(authority, "localhost"),
    }
    with backends[case]() as backend:
        scheme = "http" if case == "plain http" else "https"
        assert is_refusal(tls_gateway(f"{scheme}://localhost:{backend.port}").get("/x"), 502)
        assert backend.requests == []


# --- connections that are kept --------------------------------------------------------------------------------------


def test_a_connection_that_the_backend_closed_is_replaced(gateway: Gateway, backend: Backend) -> None:
    """A kept connection that the backend has closed in the meantime costs no request."""
    for _ in range(5):
        assert gateway.ask(GET).body == b"ok"
        backend.drop_idle()
        time.sleep(0.02)  # a real client's next request comes later than a FIN over loopback
    assert len(backend.requests) == 5


def test_a_request_is_never_sent_twice(gateway: Gateway, backend: Backend) -> None:
    """A kept connection that dies with the request on it: 502, and the backend has seen the request once."""

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(OK)
        connection.read()
        reset(connection.socket)

    backend.script = script
    assert gateway.ask(GET).body == b"ok"
    assert is_refusal(gateway.ask(b"POST /once HTTP/1.1\r\n" + AUTH + b"Content-Length: 2\r\n\r\nhi"), 502)
    assert sum(b"/once" in raw for raw in backend.requests) == 1


# --- clients that hang up -------------------------------------------------------------------------------------------


def hang_up(sock: socket.socket, how: str) -> None:
    if how == "rst":
        reset(sock)
    else:
        sock.close()


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("phase", ["waiting", "streaming", "uploading"])
def test_a_client_that_hangs_up_ends_the_work(phase: str, how: str, gateway: Gateway, backend: Backend) -> None:
    """The backend's connection is closed promptly, whether it works on the answer, streams it, or reads the upload."""
    reached, ended = threading.Event(), threading.Event()
    path = f"/{phase}/{how}"

    def script(connection: Connection) -> None:
        connection.read_head()
        if phase == "streaming":
            connection.send(HEAD_OK + b"Content-Length: 1000\r\n\r\nx")
        reached.set()
        while connection.more():
            pass
        ended.set()

    backend.script = script
    client = gateway.client()
    head = POST_CHUNKED + b"1\r\na\r\n" if phase == "uploading" else GET
    client.send(head.replace(b"/x", path.encode()))
    if phase == "streaming":
        client._until(b"\r\n\r\n")
        client._exactly(1)
    assert reached.wait(10)
    hang_up(client.socket, how)
    assert ended.wait(10), "the backend still works for nobody"
    lines = until(lambda: gateway.log(path=path), "the log line")
    assert [line["status"] for line in lines] == [200 if phase == "streaming" else 499]
    assert lines[0]["duration_ms"] < 2_000  # BACKEND_TIMEOUT


def open_sockets(gateway: Gateway) -> int:
    """The worker's sockets."""
    count = 0
    for link in Path(f"/proc/{gateway.worker_pids[0]}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed in the meantime
            count += link.readlink().name.startswith("socket:")
    return count


def test_nothing_is_left_of_aborted_requests(gateway: Gateway, backend: Backend) -> None:
    """After 500 clients that hung up in every phase, the worker holds no more sockets than before, and serves."""

    def script(connection: Connection) -> None:
        connection.read_head()
        if b"/stream" in connection.head:
            connection.send(HEAD_OK + b"Content-Length: 1000\r\n\r\nx")
        while connection.more():
            pass

    backend.script = script
    before = open_sockets(gateway)
    heads = (GET, GET.replace(b"/x", b"/stream"), POST_CHUNKED, POST_CHUNKED + b"1\r\na\r\n", GET[:30])
    for number in range(500):
        client = gateway.client().send(heads[number % 5])
        if number % 3 == 0:
            client.socket.shutdown(socket.SHUT_WR)
        hang_up(client.socket, "rst" if number % 2 else "fin")
    until(lambda: open_sockets(gateway) <= before, "the sockets to be closed")
    backend.script = answer_ok
    reply = gateway.ask(GET)
    assert (reply.status, reply.body) == (200, b"ok"), gateway.log(request_id=reply["X-Request-ID"])
    assert not [line for line in gateway.log(level="error") if "message" in line]
