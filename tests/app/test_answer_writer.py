"""How an answer is framed for its client: by version, method and status, and when the connection may go on."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sanic.exceptions import ServerError

from app.answer_writer import AnswerWriter, interim, status_line
from app.body import NO_BODY, Body
from app.core.relay.answer_reader import Framing
from app.message import Message
from app.relayed import Relayed

LENGTH = b"Content-Length: 2\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CLOSE = b"Connection: close\r\n"
STAMP = b"X-Request-Id: 1\r\n"
Version = Literal["1.0", "1.1"]


def a_message(
    method: bytes = b"GET", version: Version = "1.1", *, keep_alive: bool = True, body: Body = NO_BODY
) -> Message:
    message = Message()
    message.method, message.version, message.keep_alive, message.body = method, version, keep_alive, body
    return message


def a_body(length: int | None) -> Body:
    return Body(length, lambda: None, lambda: None)


def relaying(writer: AnswerWriter, framed_by: Framing, status: int = 200, *, is_draining: bool = False) -> bytes:
    """The head's fields as they are sent, without the status line."""
    lines = [LENGTH] if framed_by == "length" else []
    head = Relayed(status, b"Fine", lines, framed_by, is_shared_across_origins=False)
    data = writer.relayed_head(head, STAMP, is_draining=is_draining)
    line, _, fields = data.partition(b"\r\n")
    assert line == b"HTTP/1.1 %d Fine" % status
    assert fields.endswith(STAMP + b"\r\n")
    return fields.removesuffix(STAMP + b"\r\n")


RELAYED: list[tuple[bytes, Version, int, Framing, bytes, bytes, bool]] = [
    (b"GET", "1.1", 200, "length", LENGTH, b"ok", True),
    (b"GET", "1.1", 200, "chunked", CHUNKED, b"2\r\nok\r\n0\r\n\r\n", True),
    (b"GET", "1.1", 200, "close", CHUNKED, b"2\r\nok\r\n0\r\n\r\n", True),
    (b"GET", "1.0", 200, "length", LENGTH, b"ok", True),
    (b"GET", "1.0", 200, "chunked", CLOSE, b"ok", False),
    (b"GET", "1.0", 200, "close", CLOSE, b"ok", False),
    (b"HEAD", "1.1", 200, "length", LENGTH, b"", True),
    (b"HEAD", "1.1", 200, "none", b"", b"", True),
    (b"HEAD", "1.0", 200, "none", b"", b"", True),
    (b"GET", "1.1", 204, "none", b"", b"", True),
    (b"GET", "1.0", 204, "none", b"", b"", True),
    (b"GET", "1.1", 304, "none", b"", b"", True),
    (b"HEAD", "1.1", 304, "none", b"", b"", True),
]


@pytest.mark.parametrize(("method", "version", "status", "framed_by", "fields", "sent", "goes_on"), RELAYED)
def test_a_relayed_answer_is_framed_for_its_client(
    method: bytes, version: Version, status: int, framed_by: Framing, fields: bytes, sent: bytes, goes_on: bool
) -> None:
    """A length passes as it is; without one HTTP/1.1 gets chunks and HTTP/1.0 the end; HEAD, 204 and 304 no body."""
    writer = AnswerWriter(a_message(method, version))
    assert relaying(writer, framed_by, status) == fields
    assert writer.framed(b"ok", is_last=True) == sent
    assert (writer.status, writer.body_bytes) == (status, 2 if sent else 0)
    assert writer.keep_alive is goes_on
    assert writer.ends_with_connection is (not goes_on)


def test_trailers_follow_the_last_chunk() -> None:
    """Trailer fields are sent to who gets chunks, after all of the body, and to nobody else."""
    for version, sent in (("1.1", [b"2\r\nok\r\n", b"0\r\nX-Sum: 1\r\n\r\n"]), ("1.0", [b"ok", b""])):
        writer = AnswerWriter(a_message(version=version))  # type: ignore[arg-type]
        relaying(writer, "chunked")
        first = writer.framed(b"ok", is_last=False)
        writer.trailers = [b"X-Sum: 1\r\n"]
        assert [first, writer.framed(b"", is_last=True)] == sent


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_chunks_carry_the_body_whatever_its_pieces(pieces: list[bytes]) -> None:
    """However the body comes, an empty piece never reads as its end, and what was sent adds up to the body."""
    writer = AnswerWriter(a_message())
    relaying(writer, "chunked")
    sent = b"".join(writer.framed(piece, is_last=False) for piece in pieces) + writer.framed(b"", is_last=True)
    body = b""
    while True:
        size, _, sent = sent.partition(b"\r\n")
        data, sent = sent[: int(size, 16)], sent[int(size, 16) :]
        assert sent[:2] == b"\r\n"
        body, sent = body + data, sent[2:]
        if not data:
            break
    assert (body, sent) == (b"".join(pieces), b"")
    assert writer.body_bytes == len(body)


OWN = [
    (b"GET", 200, 2, LENGTH, b"ok"),
    (b"HEAD", 200, 2, LENGTH, b""),
    (b"GET", 204, 0, b"", b""),
    (b"GET", 304, 0, b"", b""),
    (b"GET", 200, None, CHUNKED, b"2\r\nok\r\n0\r\n\r\n"),
    (b"HEAD", 200, None, b"", b""),
]


@pytest.mark.parametrize(("method", "status", "length", "fields", "sent"), OWN)
def test_an_own_answer_announces_its_length(
    method: bytes, status: int, length: int | None, fields: bytes, sent: bytes
) -> None:
    """What is made here has its length, to HEAD too, but 204 and 304 have none (RFC 9110 section 8.6)."""
    writer = AnswerWriter(a_message(method))
    head = writer.own_head(status, [b"A: b\r\n"], length, STAMP, is_draining=False)
    assert head == status_line(status, None) + b"A: b\r\n" + fields + STAMP + b"\r\n"
    assert writer.framed(b"ok" if sent else b"", is_last=True) == sent


@pytest.mark.parametrize("pieces", [[b"o"], [b"ok!"], [b"ok", b"!"], [b"o", b""], []], ids=repr)
def test_a_broken_length_is_no_answer(pieces: list[bytes]) -> None:
    """Bytes beyond the announced length, or an end before it, are an error of ours, never sent as if all were well."""
    writer = AnswerWriter(a_message())
    writer.own_head(200, [], 2, STAMP, is_draining=False)
    with pytest.raises(ServerError):
        for number, piece in enumerate(pieces or [b""], 1):
            writer.framed(piece, is_last=number >= len(pieces))


def test_a_draining_worker_says_farewell() -> None:
    """While the worker drains, every answer is its connection's last and says so; so it is when the client wants it."""
    for message, is_draining in ((a_message(), True), (a_message(keep_alive=False), False)):
        writer = AnswerWriter(message)
        assert relaying(writer, "length", is_draining=is_draining) == LENGTH + CLOSE
        assert not writer.keep_alive
        writer = AnswerWriter(message)
        assert CLOSE in writer.own_head(200, [], 0, STAMP, is_draining=is_draining)
        assert not writer.keep_alive


@pytest.mark.parametrize(
    ("length", "arrived", "is_relayed", "goes_on"),
    [
        (10, 3, False, True),
        (10_000_000, 3, False, False),
        (10_000_000, 3, True, True),
        (None, 3, False, False),
        (None, 3, True, True),
    ],
)
def test_an_unwanted_body_ends_the_connection_unless_it_is_small(
    length: int | None, arrived: int, is_relayed: bool, goes_on: bool
) -> None:
    """Our own answer before the end of a large body, or one of unknown length, is the last; a backend's is not."""
    body = a_body(length)
    body.feed(b"x" * arrived)
    writer = AnswerWriter(a_message(b"POST", body=body))
    head = relaying(writer, "length") if is_relayed else writer.own_head(403, [], 0, STAMP, is_draining=False)
    assert (writer.keep_alive, CLOSE in head) == (goes_on, not goes_on)


def test_who_was_not_told_to_continue_is_not_kept() -> None:
    """A final answer to an Expect, before a byte of the body, ends the connection, a backend's too."""
    message = a_message(b"POST", body=a_body(5))
    message.has_expectation = True
    message.fields = [(b"Expect", b"100-continue")]
    writer = AnswerWriter(message)
    assert relaying(writer, "length") == LENGTH + CLOSE


def test_an_interim_answer_has_no_length() -> None:
    """A 1xx passes with its fields, without length, hop-by-hop fields or our stamp, and with the customary reason."""
    fields = [(b"Link", b"</a>"), (b"Content-Length", b"5"), (b"Connection", b"close")]
    assert interim(103, fields) == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
