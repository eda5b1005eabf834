"""How a connection goes on: its requests one by one, its end as announced (RFC 9112)."""

from __future__ import annotations

import pytest

from tests.app.corpus_forwarded import FORWARDED, request
from tests.backend import Backend
from tests.gateway import Gateway


def test_a_request_in_single_bytes_is_one_request(gateway: Gateway, backend: Backend) -> None:
    """However slowly it comes, a request is read as if it had come at once."""
    data = FORWARDED["chunk extensions"].raw
    with gateway.client() as client:
        for i in range(len(data)):
            client.send(data[i : i + 1])
        assert client.reply().status == 200
    assert [seen.partition(b"\r\n\r\n")[0].split(b"\r\n")[0] for seen in backend.requests] == [b"POST /x HTTP/1.1"]


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
