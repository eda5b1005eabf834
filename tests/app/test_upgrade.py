"""A request with `Upgrade`, byte by byte: what the backend gets, what the client gets, and whose the bytes are then."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from tests.app.test_relay import MEGABYTE, _stalls, once, resident_bytes
from tests.backend import OK, Backend, Connection, answer
from tests.gateway import STATIC_KEY, Client, Gateway, room_in_this_minute, until

AUTH = f"Host: g\r\nAuthorization: Bearer {STATIC_KEY}\r\n".encode()
ASK = b"Connection: Upgrade\r\nUpgrade: echo/1\r\n"
UPGRADE = b"GET /x HTTP/1.1\r\n" + AUTH + ASK + b"\r\n"
GET = b"GET /y HTTP/1.1\r\n" + AUTH + b"\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo/1\r\nConnection: Upgrade\r\nX-Own: 1\r\n\r\n"
Script = Callable[[Connection], None]


def switching(after: Script, said: bytes = b"", interim: bytes = b"") -> Script:
    """A script that reads one head, answers 101, says `said` in the same segment, and goes on with `after`."""

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(interim + SWITCH + said)
        after(connection)

    return script


def echo(connection: Connection) -> None:
    """Sends back what comes, until the end of it."""
    while connection.buffer or connection.more():
        connection.send(connection.buffer)
        connection.buffer = b""


def silent(connection: Connection) -> None:
    """Takes what comes and says nothing."""
    while connection.more():
        pass


def switched(client: Client) -> bytes:
    """The head of the 101, waited for."""
    head = client._until(b"\r\n\r\n") or b""
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), head
    return head


def request_id(head: bytes) -> str:
    found = re.search(rb"\r\nX-Request-ID: ([^\r]+)", head)
    assert found is not None
    return found.group(1).decode()


# --- the request ---


def test_the_backend_is_asked_as_the_client_asked(gateway: Gateway, backend: Backend) -> None:
    """Upgrade, Connection and the WebSocket's own fields reach it; the key does not; it learns who is calling."""
    fields = b"connection: keep-alive, uPgRade\r\nUPGRADE: WebSocket\r\nSec-WebSocket-Key: k\r\n"
    fields += b"Sec-WebSocket-Protocol: a, b\r\n"
    gateway.ask(b"GET /x?q HTTP/1.1\r\n" + AUTH + fields + b"\r\n")
    line, *sent = backend.last_head().split(b"\r\n")
    assert line == b"GET /x?q HTTP/1.1"
    assert [each for each in sent if each.lower().startswith((b"upgrade", b"connection", b"sec-"))] == [
        b"Sec-WebSocket-Key: k",
        b"Sec-WebSocket-Protocol: a, b",
        b"Connection: Upgrade",
        b"Upgrade: WebSocket",
    ]
    assert b"X-Organization-ID: org_1" in sent
    assert STATIC_KEY.encode() not in backend.requests[0]


IGNORED = {
    "h2c": b"GET /x HTTP/1.1\r\n"
    + AUTH
    + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n",
    "TLS": b"OPTIONS * HTTP/1.1\r\n" + AUTH + b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n",
    "a list": b"GET /x HTTP/1.1\r\n" + AUTH + b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
    "two fields": b"GET /x HTTP/1.1\r\n" + AUTH + ASK + b"Upgrade: echo/1\r\n\r\n",
    "nothing": b"GET /x HTTP/1.1\r\n" + AUTH + b"Connection: Upgrade\r\nUpgrade:\r\n\r\n",
    "no Connection": b"GET /x HTTP/1.1\r\n" + AUTH + b"Upgrade: echo/1\r\n\r\n",
    "another Connection": b"GET /x HTTP/1.1\r\n" + AUTH + b"Connection: upgrade-not\r\nUpgrade: echo/1\r\n\r\n",
    "no Upgrade": b"GET /x HTTP/1.1\r\n" + AUTH + b"Connection: Upgrade\r\n\r\n",
    "HTTP/1.0": b"GET /x HTTP/1.0\r\n" + AUTH + ASK + b"\r\n",
    "POST": b"POST /x HTTP/1.1\r\n" + AUTH + ASK + b"\r\n",
    "a method without a parser": b"FROB /x HTTP/1.1\r\n" + AUTH + ASK + b"\r\n",
    "a body": b"GET /x HTTP/1.1\r\n" + AUTH + ASK + b"Content-Length: 5\r\n\r\nhello",
    "a chunked body": b"GET /x HTTP/1.1\r\n"
    + AUTH
    + ASK
    + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("case", IGNORED)
def test_a_wish_that_is_not_passed_on_is_ignored(case: str, gateway: Gateway, backend: Backend) -> None:
    """The request is served as if it had not asked, body and all; the next one on the connection too."""
    with gateway.client() as client:
        assert client.send(IGNORED[case]).reply().status == 200
        assert not re.search(rb"(?i)\r\n(upgrade|connection|http2-settings):", backend.requests[0])
        if b"HTTP/1.0" not in IGNORED[case]:
            assert client.send(GET).reply().body == b"ok"


# --- an answer that is no switch ---


@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad", b"426 Upgrade Required\r\nUpgrade: echo/2"])
def test_a_backend_that_stays_with_http_is_relayed(status: bytes, gateway: Gateway, backend: Backend) -> None:
    """Its answer passes, hop-by-hop fields do not, and what came behind the request is read as the next request."""
    backend.script = answer(b"HTTP/1.1 " + status + b"\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nno")
    with gateway.client() as client:
        client.send(UPGRADE + GET + UPGRADE)
        replies = [client.reply() for _ in range(3)]
        assert [(reply.status, reply.body) for reply in replies] == [(int(status[:3]), b"no")] * 3
        assert replies[0].all("Upgrade") == replies[0].all("Connection") == []
        assert client.send(GET).reply().body == b"no"
    assert [raw.split(b" ")[1] for raw in backend.requests] == [b"/x", b"/y", b"/x", b"/y"]
    assert [b"\r\nUpgrade: echo/1\r\n" in raw for raw in backend.requests] == [True, False, True, False]


REFUSED = {
    401: b"GET /x HTTP/1.1\r\nHost: g\r\n" + ASK + b"\r\n",
    403: b"GET /x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer nobody\r\n" + ASK + b"\r\n",
}


@pytest.mark.parametrize("status", REFUSED)
def test_who_may_not_call_may_not_switch(status: int, gateway: Gateway, backend: Backend) -> None:
    """A refusal is HTTP, nothing reaches the backend, what follows is read as requests."""
    with gateway.client() as client:
        client.send(REFUSED[status] + GET)
        assert [client.reply().status for _ in range(2)] == [status, 200]
    assert len(backend.requests) == 1


def test_the_health_endpoints_do_not_switch(gateway: Gateway, backend: Backend) -> None:
    """They answer as always, and the connection goes on."""
    with gateway.client() as client:
        client.send(UPGRADE.replace(b"/x", b"/health/live") + GET)
        assert [client.reply().status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("prefix", [b"\x81\x85\0\0\0\0hello", b"\0\0\0"])
def test_what_follows_a_refusal_and_is_no_request_is_refused(prefix: bytes, gateway: Gateway, backend: Backend) -> None:
    """Frames sent ahead of an agreement that does not come are a malformed request: 400, and the connection ends."""
    with gateway.client() as client:
        client.send(UPGRADE + prefix + GET)
        assert [client.reply().status for _ in range(2)] == [200, 400]
        assert client.rest() == b""
    assert len(backend.requests) == 1


def test_an_upgrade_counts_against_the_limits(tmp_path: Path) -> None:
    """Each counts as one request; beyond the limit the answer is a 429, as HTTP."""
    with Backend(switching(echo)) as backend:
        environment = {"BACKEND_URLS": f"api={backend.url}", "VALID_API_KEYS": f"{STATIC_KEY}:org_1:basic"}
        with Gateway(tmp_path / "g", environment) as gateway:
            room_in_this_minute(15)
            for left in range(149, -1, -1):
                with gateway.client() as client:
                    head = switched(client.send(UPGRADE))
                    assert b"X-RateLimit-Limit-Minute: 100\r\n" in head
                    assert f"X-RateLimit-Remaining-Minute: {max(0, left - 50)}\r\n".encode() in head
            assert gateway.ask(UPGRADE).status == 429


BAD_SWITCHES = {
    "another protocol": SWITCH.replace(b"echo/1", b"h2c"),
    "two protocols": SWITCH.replace(b"echo/1", b"echo/1, h2c"),
    "no protocol": SWITCH.replace(b"Upgrade: echo/1\r\n", b""),
    "no Connection": SWITCH.replace(b"Connection: Upgrade\r\n", b""),
    "HTTP/1.2": SWITCH.replace(b"HTTP/1.1", b"HTTP/1.2"),
}


@pytest.mark.parametrize("case", BAD_SWITCHES)
def test_a_switch_to_something_else_is_a_502(case: str, gateway: Gateway, backend: Backend) -> None:
    """A 101 that does not agree to what was asked for joins nobody; the client's connection goes on."""
    backend.script = once(BAD_SWITCHES[case] + b"secret")
    with gateway.client() as client:
        reply = client.send(UPGRADE).reply()
        assert (reply.status, b"secret" in reply.body) == (502, False)
        backend.script = answer(OK)
        assert client.send(GET).reply().body == b"ok"


def test_nobody_is_switched_unasked(gateway: Gateway, backend: Backend) -> None:
    """A 101 to an ordinary request, and one whose wish was not passed on, are 502."""
    backend.script = once(SWITCH)
    assert gateway.ask(GET).status == 502
    assert gateway.ask(IGNORED["a list"]).status == 502


def test_a_backend_that_never_answers_the_wish_is_a_504(gateway: Gateway, backend: Backend) -> None:
    """Until the 101 the backend's time-out holds as for any request."""
    backend.script = silent
    assert gateway.ask(UPGRADE).status == 504


def test_a_client_that_leaves_before_the_answer(gateway: Gateway, backend: Backend) -> None:
    """Its wish is given up at the backend too."""
    reached, left = threading.Event(), threading.Event()
    path = "/who-leaves-before-the-answer"

    def script(connection: Connection) -> None:
        connection.read()
        reached.set()
        silent(connection)
        left.set()

    backend.script = script
    with gateway.client() as client:
        client.send(UPGRADE.replace(b"/x", path.encode()))
        assert reached.wait(10)
    assert left.wait(10)
    assert until(lambda: gateway.log(path=path), "the line")[0]["status"] == 499  # not BACKEND_TIMEOUT's 504


def test_what_is_sent_ahead_is_held_in_bounded_room(tmp_path: Path) -> None:
    """A client that floods before the 101 is stopped, memory stays, and the backend gets every byte in the end."""
    size, sent, go, received = 40 * MEGABYTE, [0], threading.Event(), [0]

    def script(connection: Connection) -> None:
        connection.read()
        go.wait(20)
        connection.send(SWITCH)
        while connection.more():
            received[0] += len(connection.buffer)
            connection.buffer = b""

    with (
        Backend(script) as backend,
        Gateway(tmp_path / "g", {"BACKEND_URLS": f"api={backend.url}"}) as gateway,
        gateway.client() as client,
    ):
        before = resident_bytes(gateway)
        client.send(UPGRADE)
        sender = threading.Thread(target=_pour, args=(client.socket, size, sent))
        sender.start()
        assert _stalls(sent) < 30 * MEGABYTE  # what kernels buffer, and no more
        assert resident_bytes(gateway) - before < 8 * MEGABYTE
        go.set()
        switched(client)
        sender.join(20)
        until(lambda: received == [size], "all of it to arrive")


def _pour(sock: socket.socket, size: int, sent: list[int]) -> None:
    while sent[0] < size:
        sock.sendall(bytes(65_536))
        sent[0] += 65_536


# --- the tunnel ---


def test_the_answer_says_that_it_switched(gateway: Gateway, backend: Backend) -> None:
    """101 with Upgrade, Connection and the backend's own fields; the request's id and the limits as on any answer."""
    backend.script = switching(echo)
    with gateway.client() as client:
        head = switched(client.send(UPGRADE))
    lines = head.split(b"\r\n")
    assert {b"X-Own: 1", b"Connection: Upgrade", b"Upgrade: echo/1", b"X-RateLimit-Limit-Minute: 10000"} <= {*lines}
    assert b"Connection: close" not in lines
    assert not re.search(rb"(?i)content-length|transfer-encoding", head)


def test_bytes_pass_both_ways_as_they_are(gateway: Gateway, backend: Backend) -> None:
    """Also those that look like HTTP, in both directions, and those that either side sent ahead of time."""
    backend.script = switching(echo, said=b"HTTP/1.1 200 OK\r\n\r\n\0")
    with gateway.client() as client:
        switched(client.send(UPGRADE + GET))
        assert client._exactly(20) == (b"HTTP/1.1 200 OK\r\n\r\n\0", True)
        assert client._exactly(len(GET)) == (GET, True)
        for data in (b"\0\xff\r\n\r\n", GET, bytes(range(256)) * 4_000):
            client.send(data)
            assert client._exactly(len(data)) == (data, True)
    assert len(backend.requests) == 1


def test_a_request_in_single_bytes_switches_too(gateway: Gateway, backend: Backend) -> None:
    """However it comes."""
    backend.script = switching(echo)
    with gateway.client() as client:
        for at in range(len(UPGRADE)):
            client.send(UPGRADE[at : at + 1])
        switched(client)
        assert client.send(b"x")._exactly(1) == (b"x", True)


def test_a_switch_behind_pipelined_requests(gateway: Gateway, backend: Backend) -> None:
    """What was asked before is answered before; then the connection is a tunnel."""

    def script(connection: Connection) -> None:
        while connection.read() and b"\r\nUpgrade:" not in connection.head:
            connection.send(OK)
        connection.send(SWITCH)
        echo(connection)

    backend.script = script
    post = b"POST /y HTTP/1.1\r\n" + AUTH + b"Content-Length: 70000\r\n\r\n" + b"x" * 70_000
    with gateway.client() as client:
        client.send(post + GET + UPGRADE + b"ahead")
        assert [client.reply().body for _ in range(2)] == [b"ok", b"ok"]
        switched(client)
        assert client._exactly(5) == (b"ahead", True)


def test_interim_answers_come_before_the_switch(gateway: Gateway, backend: Backend) -> None:
    """A 103 ahead of the 101 is passed on as one."""
    backend.script = switching(echo, interim=b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
    with gateway.client() as client:
        assert client.send(UPGRADE)._until(b"\r\n\r\n") == b"HTTP/1.1 103 Early Hints\r\nLink: x"
        switched(client)
        assert client.send(b"x")._exactly(1) == (b"x", True)


def test_the_log_has_one_line_when_it_ends(gateway: Gateway, backend: Backend) -> None:
    """Status 101, the bytes that the client was sent, the time of the whole, and nothing before."""
    backend.script = switching(echo, said=b"hello")
    with gateway.client() as client:
        name = request_id(switched(client.send(UPGRADE)))
        began = time.monotonic()
        client.send(b"x" * 1_000)._exactly(1_005)
        assert gateway.log(request_id=name) == []
        lasted_ms = (time.monotonic() - began) * 1_000
    line = gateway.access(name)
    assert (line["status"], line["level"], line["bytes"], line["service"]) == (101, "info", 1_005, "api")
    assert line["duration_ms"] >= lasted_ms
    assert line["backend_ms"] <= line["duration_ms"]
    assert gateway.log(request_id=name) == [line]


def test_one_side_may_end_while_the_other_goes_on(gateway: Gateway, backend: Backend) -> None:
    """The client's end of stream reaches the backend, which still answers; then its own end reaches the client."""

    def count(connection: Connection) -> None:
        while connection.more():
            pass
        time.sleep(0.2)  # an answer that takes a while
        connection.send(b"%d" % len(connection.buffer))

    backend.script = switching(count)
    with gateway.client() as client:
        switched(client.send(UPGRADE))
        client.send(b"x" * 100_000).socket.shutdown(socket.SHUT_WR)
        assert client.rest() == b"100000"


def test_a_backend_may_end_first(gateway: Gateway, backend: Backend) -> None:
    """Its end of stream reaches the client, which still may send."""
    received: list[bytes] = []

    def listen(connection: Connection) -> None:
        connection.socket.shutdown(socket.SHUT_WR)
        while connection.more():
            pass
        received.append(connection.buffer)

    backend.script = switching(listen, said=b"bye")
    with gateway.client() as client:
        switched(client.send(UPGRADE))
        assert client.rest() == b"bye"
        client.send(b"x" * 100_000)
    until(lambda: received == [b"x" * 100_000], "the backend to have all of it")


def ended_with_reset(sock: socket.socket) -> bool:
    try:
        while sock.recv(65_536):
            pass
    except ConnectionResetError:
        return True
    return False


def test_a_clients_reset_is_the_backends(gateway: Gateway, backend: Backend) -> None:
    """An abrupt end does not look like an orderly one at the other side."""
    ends: list[bool] = []
    backend.script = switching(lambda connection: ends.append(ended_with_reset(connection.socket)))
    with gateway.client() as client:
        switched(client.send(UPGRADE))
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: ends == [True], "the backend's connection to be reset")


def test_a_backends_reset_is_the_clients(gateway: Gateway, backend: Backend) -> None:
    """The other way round, and the line is written."""

    def script(connection: Connection) -> None:
        connection.more()
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.socket.close()

    backend.script = switching(script)
    with gateway.client() as client:
        name = request_id(switched(client.send(UPGRADE)))
        assert ended_with_reset(client.send(b"x").socket)
    assert gateway.access(name)["status"] == 101


@pytest.mark.parametrize("is_down", [True, False], ids=["down", "up"])
def test_a_side_that_does_not_read_stops_the_other(is_down: bool, gateway: Gateway, backend: Backend) -> None:
    """Fifty megabytes towards a side that reads late: the sender stalls, memory stays flat, nothing is lost."""
    size, sent, go, received = 50 * MEGABYTE, [0], threading.Event(), [0]

    def pour(sock: socket.socket) -> None:
        _pour(sock, size, sent)
        sock.shutdown(socket.SHUT_WR)

    def drink(sock: socket.socket) -> None:
        go.wait(20)
        while data := sock.recv(MEGABYTE):
            received[0] += len(data)

    backend.script = switching(lambda connection: (pour if is_down else drink)(connection.socket))
    before = resident_bytes(gateway)
    with gateway.client() as client:
        switched(client.send(UPGRADE))
        thread = threading.Thread(target=drink if is_down else pour, args=(client.socket,))
        received[0] = len(client.buffer)
        thread.start()
        assert _stalls(sent) < 30 * MEGABYTE  # what kernels buffer, and no more
        assert resident_bytes(gateway) - before < 8 * MEGABYTE
        go.set()
        thread.join(20)
        until(lambda: received == [size], "all of it to arrive")
    assert resident_bytes(gateway) - before < 8 * MEGABYTE


def test_a_tunnel_outlives_the_time_outs_of_requests(gateway: Gateway, backend: Backend) -> None:
    """A backend that is silent for longer than BACKEND_TIMEOUT (2 s here) is still connected."""
    backend.script = switching(echo)
    with gateway.client() as client:
        switched(client.send(UPGRADE))
        time.sleep(2.7)  # the sweep that would end it comes every fifth of a second
        assert client.send(b"x")._exactly(1) == (b"x", True)


def test_a_backend_behind_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tunnel goes through the backend's TLS, with what it said at once; its end is the client's."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    def script(connection: Connection) -> None:
        while connection.more() and b"quit" not in connection.buffer:
            connection.send(connection.buffer)
            connection.buffer = b""

    with Backend(switching(script, said=b"hello"), tls=context) as backend:
        urls = f"api=https://localhost:{backend.port}"
        environment = {"BACKEND_URLS": urls, "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        with Gateway(tmp_path / "g", environment) as gateway, gateway.client() as client:
            name = request_id(switched(client.send(UPGRADE + b"ahead")))
            assert client._exactly(10) == (b"helloahead", True)
            data = bytes(range(256)) * 2_000
            client.send(data)
            assert client._exactly(len(data)) == (data, True)
            assert client.send(b"quit").rest() == b""
            assert gateway.access(name)["bytes"] == len(data) + 10


def test_an_idle_tunnel_ends(tmp_path: Path) -> None:
    """After TUNNEL_IDLE_TIMEOUT without a byte either way, not before, with a reset; bytes of either side keep it."""
    with Backend(switching(echo)) as backend:
        environment = {"BACKEND_URLS": f"api={backend.url}", "TUNNEL_IDLE_TIMEOUT": "2"}
        with Gateway(tmp_path / "g", environment) as gateway, gateway.client() as client:
            name = request_id(switched(client.send(UPGRADE)))
            for _ in range(5):
                time.sleep(0.5)  # a pause that is allowed
                last = time.monotonic()
                client.send(b"x")._exactly(1)
            assert ended_with_reset(client.socket)
            assert 1.4 < time.monotonic() - last < 15
            assert gateway.access(name)["bytes"] == 5
            until(lambda: gateway.log(message="tunnel ended: idle timeout"), "the log to say why")
