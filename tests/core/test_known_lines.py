"""Heads of known lines: whoever has learned reads every answer exactly as who has not, and remembers within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.core.model import Backend
from app.core.relay import answer_reader, headers
from app.core.relay.answer_reader import HOPE, HOPELESS_LOOKS
from app.core.relay.known_lines import FIELDS_MAX, LINE_BYTES_MAX, LINES_MAX, KnownLines
from app.core.relay.peer import Peer

LEARNED = (
    b"HTTP/1.1 200 OK\r\nServer: s\r\nX-Empty:\r\nVary: a, b\t \r\nConnection: keep-alive\r\n"
    b"Content-Length: 2\r\n\r\nok"
)
LINES = [
    b"Server: s",
    b"Vary:a, b",
    b"Set-Cookie: a=1; Path=/",
    b"set-cookie: b=2",
    b"Access-Control-Allow-Origin: *",
    b"X-RateLimit-Limit: 7",
    b"X-Request-Id: theirs",
    b"X_Latin: \xe9",
    b"Content_Length: 5",
    b"Connection: keep-alive",
    b"CONNECTION:Keep-Alive",
    b"X-Empty:",
    b"X-Empty: \t",
    b"Date: Tue, 24 Nov 2026 16:37:28 GMT",
]
JUDGED = [
    b"Content-Length: 2",
    b"Content-Length: 02",
    b"Content-Length: 3",
    b"Content-Length:",
    b"Content-Length: 1_0",
    b"Content-Length : 2",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Connection: close",
    b"Proxy-Connection: close",
    b"Connection: keep-alive, Server",
    b"Connection: upgrade",
    b"Upgrade: websocket",
    b"Trailer: Server",
    b"Keep-Alive: timeout=5",
    b" folded",
    b"\tfolded",
    b"X: a\nServer: s",
    b"X: a\rServer: s",
    b"X: \0",
    b"",
]
STATUSES = [
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 404 Not Found",
    b"HTTP/1.1 200 ",
    b"HTTP/1.1 200",
    b"HTTP/1.1 200 \x01",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.1 101 Switching Protocols",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.2 200 OK",
]
BODIES = [b"", b"o", b"ok", b"ok!", b"2\r\nok\r\n0\r\n\r\n", b"ok" + LEARNED]


class Line(asyncio.Transport):
    """A connection that takes no bytes: what a Peer does with it is seen in the Peer."""

    def __init__(self) -> None:
        super().__init__()
        self.is_over = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is written."""

    def is_closing(self) -> bool:
        return self.is_over

    def abort(self) -> None:
        self.is_over = True

    def pause_reading(self) -> None:
        """Nothing more comes of itself."""

    def resume_reading(self) -> None:
        """As above."""


@pytest.fixture
def ignorant(monkeypatch: pytest.MonkeyPatch) -> Callable[[], KnownLines]:
    """Makes the process forget what it has learned."""

    def forget() -> KnownLines:
        known = KnownLines()
        monkeypatch.setattr(answer_reader, "_known", known)
        return known

    return forget


def a_peer() -> Peer:
    made = Peer(Backend("b", "http", "h", 1), 5.0, lambda: 0.0)
    made.connection_made(Line())
    return made


def reading(reader: Peer, *pieces: bytes, head_only: bool = False) -> dict[str, Any]:
    """Everything that may be seen of an answer which comes in these pieces."""
    told: list[Any] = []
    reader.begin(head_only, lambda status, fields: told.append((status, list(fields))))
    for piece in pieces:
        if reader.is_usable:
            reader.data_received(piece)
    seen: dict[str, Any] = {
        name: getattr(reader, name)
        for name in ("status", "reason", "fields", "framed_by", "has_head", "is_complete", "trailers", "deadline")
    }
    known = reader.known
    if known is not None:
        assert known.passed.splitlines(keepends=True) == headers.to_client(known.fields)
        assert known.shares == headers.has_name(known.fields, b"access-control-allow-origin")
        assert (known.status, known.reason, known.fields) == (reader.status, reader.reason, reader.fields)
    error = type(reader.error)
    return {**seen, "told": told, "body": reader.take(), "error": error, "reusable": reader.end()}


def head(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Answers of ordinary lines with one length, and of everything else."""
    lines = draw(st.lists(st.sampled_from(LINES), max_size=6))
    body = draw(st.sampled_from(BODIES))
    if draw(st.booleans()):
        lines.insert(draw(st.integers(0, len(lines))), b"Content-Length: %d" % len(body))
        return head(b"HTTP/1.1 200 OK", *lines) + body
    lines += draw(st.lists(st.sampled_from(JUDGED), max_size=2))
    return head(draw(st.sampled_from(STATUSES)), *draw(st.permutations(lines))) + body


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` with bytes changed, inserted, removed or doubled, in one piece or cut into two."""
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 20)))
        text = draw(
            st.sampled_from([b"", b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"0", b"9", b"\0", data[start:end] * 2])
        )
        data = data[:start] + text + data[end:]
    cut = draw(st.integers(0, len(data)))
    return [data[:cut], data[cut:]] if cut and draw(st.booleans()) else [data]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[bytes], list[bytes], bool]:
    """What was learned from, what comes then, and whether that was asked for by HEAD."""
    earlier = draw(st.lists(answers(), min_size=1, max_size=4))
    return earlier, draw(mutations(draw(st.one_of(st.sampled_from(earlier), answers())))), draw(st.booleans())


@given(histories())
@example(([LEARNED], [LEARNED], False))
@example(([LEARNED], [LEARNED.replace(b"Content-Length: 2\r\n", b"Content-Length: 2\r\n" * 2)], False))
@example(([LEARNED], [LEARNED.replace(b"Server: s\r\n", b"Server: s\r\n" * FIELDS_MAX)], False))
@example(([LEARNED, LEARNED.replace(b"2\r\n\r\nok", b"0\r\n\r\n")], [LEARNED + LEARNED], False))
def test_who_has_learned_reads_as_who_has_not(history: tuple[list[bytes], list[bytes], bool]) -> None:
    """Any answer, and any mutation of a learned one, is the same to a Peer that has learned as to one that has not."""
    earlier, pieces, head_only = history
    before = answer_reader._known
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_reader, "_known", KnownLines())

        async def compare() -> tuple[Any, Any]:
            for each in earlier:
                reading(a_peer(), each)
            learned = reading(a_peer(), *pieces, head_only=head_only)
            patch.setattr(answer_reader, "_known", KnownLines())
            return learned, reading(a_peer(), *pieces, head_only=head_only)

        learned, ignorant = asyncio.run(compare())
    assert answer_reader._known is before
    assert learned == ignorant


@given(st.lists(st.lists(st.sampled_from(LINES), max_size=5), min_size=1, max_size=6), st.randoms())
def test_one_connection_reads_as_its_first_answer_did(heads: list[list[bytes]], chance: Any) -> None:
    """On a kept connection, known and unknown answers in any order each read as they would on a fresh one."""
    data = [head(b"HTTP/1.1 200 OK", *lines, b"Content-Length: 2") + b"ok" for lines in heads] * 3
    chance.shuffle(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_reader, "_known", KnownLines())

        async def compare() -> None:
            kept = a_peer()
            for each in data:
                seen = reading(kept, each)
                with pytest.MonkeyPatch.context() as inner:
                    inner.setattr(answer_reader, "_known", KnownLines())
                    assert seen == reading(a_peer(), each)
                assert seen["reusable"]

        asyncio.run(compare())


async def test_a_repeated_answer_is_taken_without_the_parser(ignorant: Callable[[], KnownLines]) -> None:
    """The point of it all: the second answer of the same lines, in another order and with another body, is known."""
    ignorant()
    kept = a_peer()
    assert reading(kept, LEARNED)["reusable"]
    assert kept.known is None
    again = head(b"HTTP/1.1 200 OK", b"Content-Length: 2", b"Server: s", b"Server: s") + b"no"
    assert reading(kept, again)["body"] == b"no"
    assert kept.known is not None
    assert kept.known.passed == b"Content-Length: 2\r\nServer: s\r\nServer: s\r\n"


NEVER = {
    "two lengths": [b"HTTP/1.1 200 OK", b"Content-Length: 2", b"Content-Length: 2"],
    "no length": [b"HTTP/1.1 200 OK", b"Server: s"],
    "a coding": [b"HTTP/1.1 200 OK", b"Content-Length: 2", b"Transfer-Encoding: chunked"],
    "a farewell": [b"HTTP/1.1 200 OK", b"Content-Length: 2", b"Connection: close"],
    "named fields": [b"HTTP/1.1 200 OK", b"Content-Length: 2", b"Connection: keep-alive, Server", b"Server: s"],
    "an upgrade": [b"HTTP/1.1 200 OK", b"Content-Length: 2", b"Upgrade: websocket"],
    "a trailer": [b"HTTP/1.1 200 OK", b"Content-Length: 2", b"Trailer: Server"],
    "a patience": [b"HTTP/1.1 200 OK", b"Content-Length: 2", b"Keep-Alive: timeout=5"],
    "a secret": [b"HTTP/1.1 200 OK", b"Content-Length: 2", b"Set-Cookie: session=1"],
    "204": [b"HTTP/1.1 204 No Content", b"Content-Length: 2"],
    "304": [b"HTTP/1.1 304 Not Modified", b"Content-Length: 2"],
    "an interim answer": [b"HTTP/1.1 103 Early Hints", b"Content-Length: 2"],
    "HTTP/1.0": [b"HTTP/1.0 200 OK", b"Content-Length: 2", b"Connection: keep-alive"],
    "a folded line": [b"HTTP/1.1 200 OK", b"Content-Length: 2", b"Server: s", b" t"],
    "a bare line feed": [b"HTTP/1.1 200 OK", b"Content-Length: 2\nServer: s"],
}


@pytest.mark.parametrize("lines", NEVER.values(), ids=NEVER)
async def test_what_is_never_taken(ignorant: Callable[[], KnownLines], lines: list[bytes]) -> None:
    """However often it was read, a head that says more than its lines one by one goes to the parser."""
    known = ignorant()
    said = head(*lines) + b"ok"
    for _ in range(3):
        reading(a_peer(), LEARNED)
        reader = a_peer()
        reading(reader, said)
        assert reader.known is None
    assert known.read(said[: said.find(b"\r\n\r\n")]) is None


async def test_an_answer_to_head_is_never_taken(ignorant: Callable[[], KnownLines]) -> None:
    """What HEAD is answered has no body, whatever its length says: neither taken nor learned from."""
    known = ignorant()
    bodiless = LEARNED.removesuffix(b"ok")
    reader = a_peer()
    assert reading(reader, bodiless, head_only=True)["is_complete"]
    assert known.read(bodiless.removesuffix(b"\r\n\r\n")) is None
    reading(reader, LEARNED)
    assert reading(reader, bodiless, head_only=True)["framed_by"] == "none"
    assert reader.known is None


async def test_after_an_interim_answer_the_parser_reads_on(ignorant: Callable[[], KnownLines]) -> None:
    """A final answer of known lines behind a 103, in the same piece or the next, is the parser's: it has begun."""
    ignorant()
    reader = a_peer()
    reading(reader, LEARNED)
    early = b"HTTP/1.1 103 Early Hints\r\nServer: s\r\n\r\n"
    for pieces in ([early, LEARNED], [early + LEARNED]):
        seen = reading(reader, *pieces)
        assert (seen["told"], seen["body"], reader.known) == ([(103, [(b"Server", b"s")])], b"ok", None)


def test_lines_are_kept_within_bounds() -> None:
    """Of a backend that says something new each time, no more than LINES_MAX lines and as many statuses are kept."""
    known = KnownLines()
    for number in range(LINES_MAX):
        value = b"%d" % number
        fields = [(b"A", value), (b"B", value)]
        known.learn(head(b"HTTP/1.1 200 OK", *(b"%b: %b" % field for field in fields))[:-4], 200, b"OK", fields)
        assert len(known._lines) <= LINES_MAX
    assert known._lines


def test_statuses_are_kept_within_bounds() -> None:
    """Reasons are the backend's to invent: of ever new ones over the same lines, no more than LINES_MAX are kept."""
    known = KnownLines()
    for number in range(LINES_MAX + 10):
        reason = b"Reason %d" % number
        known.learn(b"HTTP/1.1 200 %b\r\nA: b" % reason, 200, reason, [(b"A", b"b")])
    assert len(known._statuses) <= LINES_MAX
    assert known._statuses


def test_long_lines_are_not_kept() -> None:
    """A line or a status line over LINE_BYTES_MAX is read anew each time: memory is bounded in bytes too."""
    known = KnownLines()
    value, reason = b"v" * LINE_BYTES_MAX, b"r" * LINE_BYTES_MAX
    fields = [(b"A", value), (b"Content-Length", b"2")]
    known.learn(head(b"HTTP/1.1 200 " + reason, b"A: " + value, b"Content-Length: 2")[:-4], 200, reason, fields)
    assert list(known._lines) == [b"Content-Length: 2"]
    assert not known._statuses


def unknown(number: int) -> bytes:
    return head(b"HTTP/1.1 200 OK", b"X-Number: %d" % number, b"Content-Length: 2") + b"ok"


async def test_a_hopeless_backend_is_looked_at_now_and_then(ignorant: Callable[[], KnownLines]) -> None:
    """After HOPE new answers in a row only each HOPELESS_LOOKS-th is looked at; one that is known restores the hope."""
    ignorant()
    kept = a_peer()
    for number in range(HOPE + 2 * HOPELESS_LOOKS):
        assert reading(kept, unknown(number))["reusable"]
    reading(a_peer(), LEARNED)
    for turn in range(1, HOPELESS_LOOKS + 3):
        assert reading(kept, LEARNED)["reusable"]
        assert (kept.known is not None) is (turn >= HOPELESS_LOOKS)


async def test_hope_lasts_for_some_new_answers(ignorant: Callable[[], KnownLines]) -> None:
    """Fewer than HOPE new answers in a row, again and again, do not keep the known ones from being found."""
    ignorant()
    kept = a_peer()
    reading(kept, LEARNED)
    for number in range(5 * HOPE):
        if number % HOPE:
            reading(kept, unknown(number))
        else:
            reading(kept, LEARNED)
            assert kept.known is not None
