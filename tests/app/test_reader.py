"""What the door makes of bytes, without a network: every message exactly, however it is cut; never one more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sanic import Sanic

from app import reader
from app.body import BUFFER_BYTES_HIGH
from app.core.errors import BodyTooLarge, GatewayError, HeadersTooLarge, MalformedRequest, TargetTooLong
from app.message import TARGET_BYTES_MAX, Message
from app.reader import FIELDS_MAX, HEAD_BYTES_MAX, PIPELINE_MAX
from tests.app.wire import Door, sanic_app

GET = b"GET /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n"
SIZED = b"POST /s HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"PUT /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"005;a=b\r\nhel\r\n\r\n6\r\n\r\n\r\nGE\r\n0\r\nX-Sum: 1\r\n\r\n"
)
STRANGE = b"FROB /f HTTP/1.1\r\nHost: h\r\n\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
UPGRADED = b"GET /u HTTP/1.1\r\nHost: h\r\n" + UPGRADE + b"\r\n"
UPGRADED_SIZED = b"POST /v HTTP/1.1\r\nHost: h\r\n" + UPGRADE + b"Content-Length: 4\r\n\r\nbody"
UPGRADED_CHUNKED = (
    b"POST /w HTTP/1.1\r\nHost: h\r\n" + UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
)
UPGRADED_SOCKET = UPGRADED.replace(b"/u", b"/ws").replace(b"h2c", b"websocket")
BROKEN = b"GET /bad HTTP/1.1\r\nHost : h\r\n\r\n"


@pytest.fixture
def app() -> Iterator[Sanic[Any, Any]]:
    yield sanic_app("reader")
    Sanic._app_registry.pop("reader", None)


def described(received: list[Any]) -> list[tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]]] | int]:
    """What was handed over, comparable: method, target, body, trailers; or the status of the refusal."""
    return [
        each.status if isinstance(each, GatewayError) else (each[0].method, each[0].target, each[1], trailers(each[0]))
        for each in received
    ]


def trailers(message: Message) -> list[tuple[bytes, bytes]]:
    return message.body.trailers


async def take_in(app: Sanic[Any, Any], pieces: list[bytes]) -> list[Any]:
    """What a door hands over that is fed these pieces."""
    door = Door(app)
    for piece in pieces:
        if door.wire.is_paused:
            await door.settle()
        door.feed(piece)
    await door.settle()
    await door.until_closed()
    return door.received


STREAM = (
    GET
    + SIZED
    + STRANGE
    + b"\r\n"
    + CHUNKED
    + UPGRADED
    + UPGRADED_SIZED
    + STRANGE
    + UPGRADED_CHUNKED
    + GET
    + UPGRADED_SOCKET
    + UPGRADED_SOCKET
    + SIZED
    + BROKEN
)
STREAM_READ = [
    (b"GET", b"/a?b=c", b"", []),
    (b"POST", b"/s", b"hello", []),
    (b"FROB", b"/f", b"", []),
    (b"PUT", b"/c", b"hel\r\n\r\n\r\nGE", [(b"X-Sum", b"1")]),
    (b"GET", b"/u", b"", []),
    (b"POST", b"/v", b"body", []),
    (b"FROB", b"/f", b"", []),
    (b"POST", b"/w", b"hi", []),
    (b"GET", b"/a?b=c", b"", []),
    (b"GET", b"/ws", b"", []),
    (b"GET", b"/ws", b"", []),
    (b"POST", b"/s", b"hello", []),
    400,
]


async def test_a_stream_in_one_piece_is_read_request_by_request(app: Sanic[Any, Any]) -> None:
    """Pipelined requests of every framing, strange methods and upgrades too, come out one by one up to the error."""
    assert described(await take_in(app, [STREAM])) == STREAM_READ


async def test_a_stream_in_single_bytes_reads_the_same(app: Sanic[Any, Any]) -> None:
    """Byte by byte, nothing is read differently."""
    assert described(await take_in(app, [STREAM[i : i + 1] for i in range(len(STREAM))])) == STREAM_READ


async def test_a_stream_cut_anywhere_reads_the_same(app: Sanic[Any, Any]) -> None:
    """Wherever two packets part, nothing is read differently."""
    for cut in range(1, len(STREAM)):
        assert described(await take_in(app, [STREAM[:cut], STREAM[cut:]])) == STREAM_READ, cut


VALID = [GET, SIZED, CHUNKED, STRANGE, UPGRADED_SIZED, UPGRADED_CHUNKED, UPGRADED_SOCKET]
ALPHABET = [
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b":",
    b"0",
    b"5",
    b"\0",
    b"\x0b",
    b"\x80",
    b"chunked",
    b"Content-Length: 3\r\n",
]
INSERTED = st.one_of(st.sampled_from([*ALPHABET, GET, b"Transfer-Encoding: chunked\r\n"]), st.binary(max_size=3))


@st.composite
def mutated(draw: st.DrawFn) -> list[bytes]:
    """Pieces of a stream of valid requests with up to three spots overwritten, removed or doubled."""
    data = b"".join(draw(st.lists(st.sampled_from(VALID), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(INSERTED) + data[at + draw(st.integers(0, 3)) :]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


def read_by_h11(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """The whole requests in `data`, by h11. It takes no empty line before a request, so those are taken away for it."""
    connection, found, body = h11.Connection(h11.SERVER), [], b""
    connection.receive_data(data.lstrip(b"\r\n"))
    request: h11.Request | None = None
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                found.append((request.method, request.target, body))
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return found
                rest = connection.trailing_data[0].lstrip(b"\r\n")
                connection = h11.Connection(h11.SERVER)
                connection.receive_data(rest)
            else:
                return found
    except h11.RemoteProtocolError:
        return found


@settings(max_examples=400, deadline=None)
@given(mutated())
@example([STREAM])
def test_what_is_handed_over_is_what_another_parser_reads(pieces: list[bytes]) -> None:
    """Of mutated requests, cut at random, the door hands over only what h11 reads too, or refuses; it never raises."""
    app = sanic_app("fuzz")
    try:
        received = asyncio.run(take_in(app, pieces))
    finally:
        Sanic._app_registry.pop("fuzz", None)
    whole = [each for each in described(received) if isinstance(each, tuple)]
    assert [each[:3] for each in whole] == read_by_h11(b"".join(pieces))[: len(whole)]


# --- limits ---


def head(target: bytes = b"/", fields: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: h\r\n%b\r\n" % (target, fields)


FILL = HEAD_BYTES_MAX - len(head(fields=b"X: \r\n"))
LIMITS: dict[str, tuple[bytes, type[GatewayError] | None]] = {
    "a target of the greatest length": (head(b"/" + b"x" * (TARGET_BYTES_MAX - 1)), None),
    "a target too long by one": (head(b"/" + b"x" * TARGET_BYTES_MAX), TargetTooLong),
    "a target without end": (b"GET /" + b"x" * 20_000, TargetTooLong),
    "a head of the greatest size": (head(fields=b"X: " + b"x" * FILL + b"\r\n"), None),
    "a head too large by one": (head(fields=b"X: " + b"x" * (FILL + 1) + b"\r\n"), HeadersTooLarge),
    "a value without end": (head()[:-2] + b"X: " + b"x" * 20_000, HeadersTooLarge),
    "a name without end": (head()[:-2] + b"x" * 20_000, HeadersTooLarge),
    "as many fields as may be": (head(fields=b"X: y\r\n" * (FIELDS_MAX - 1)), None),
    "a field too many": (head(fields=b"X: y\r\n" * FIELDS_MAX), HeadersTooLarge),
    "a method too long": (b"M" * 33 + b" / HTTP/1.1\r\nHost: h\r\n\r\n", MalformedRequest),
    "trailers without end": (CHUNKED[:-2] + b"X: " + b"x" * 40_000, HeadersTooLarge),
    "too many trailers": (CHUNKED[:-2] + b"X: y\r\n" * FIELDS_MAX + b"\r\n", HeadersTooLarge),
    "a chunk extension without end": (CHUNKED[: CHUNKED.index(b";")] + b";" + b"x" * 40_000, HeadersTooLarge),
}


@pytest.mark.parametrize("size", [1, 1000, 300_000])
@pytest.mark.parametrize("case", LIMITS)
async def test_limits_hold_to_the_byte_however_they_are_reached(case: str, size: int, app: Sanic[Any, Any]) -> None:
    """What is as large as may be passes, one byte more is refused, in one piece as in many."""
    data, expected = LIMITS[case]
    received = await take_in(app, [data[i : i + size] for i in range(0, len(data), size)])
    assert len(received) == 1
    if expected is None:
        assert isinstance(received[0], tuple), received
    else:
        assert type(received[0]) is expected


class Unserved:
    """An exchange that never ends: what comes after it has to wait."""

    has_begun = False

    def __init__(self, protocol: Door, message: Message) -> None:
        self.message = message
        self._done = asyncio.get_running_loop().create_future()

    def hang_up(self) -> None:
        self._done.cancel()

    async def run(self) -> bool:
        await self._done
        return False


class BusyDoor(Door):
    """Serves its first request for ever."""

    HTTP_CLASS: Any = Unserved
    __slots__ = ()


async def test_pipelined_requests_wait_in_bounded_room(app: Sanic[Any, Any]) -> None:
    """However many requests one packet brings, a fixed number is made ready and the socket is read no further."""
    door = BusyDoor(app).feed(GET)
    await door.settle()
    door.feed(GET * 5_000)
    assert len(door.reader.queue) == PIPELINE_MAX
    assert door.wire.is_paused
    await door.until_closed()


async def test_pipelined_bodies_wait_in_bounded_room(app: Sanic[Any, Any]) -> None:
    """Bodies that wait for their turn count together against one bound."""
    large = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 40000\r\n\r\n" + b"x" * 40_000
    door = BusyDoor(app).feed(GET)
    await door.settle()
    door.feed(large * 6)
    assert sum(each.body.size for each in door.reader.queue) < 2 * BUFFER_BYTES_HIGH
    assert door.wire.is_paused
    await door.until_closed()


async def test_everything_held_back_is_served_in_the_end(app: Sanic[Any, Any]) -> None:
    """Requests beyond what is made ready at once are not lost."""
    assert len(await take_in(app, [(SIZED + STRANGE + UPGRADED) * 1_000])) == 3_000


async def test_what_follows_a_wish_to_switch_waits_unread(app: Sanic[Any, Any]) -> None:
    """Until it is known whose the bytes are, they are neither requests nor lost; the socket is read no further."""
    door = BusyDoor(app).feed(UPGRADED_SOCKET + GET)
    await door.settle()
    assert door.exchange is not None
    assert door.exchange.message.upgrade == b"websocket"
    assert (len(door.reader.queue), door.wire.is_paused) == (0, True)
    assert door.reader.take_held() == GET
    await door.until_closed()


async def test_a_wish_to_switch_alone_leaves_the_socket_readable(app: Sanic[Any, Any]) -> None:
    """So that a client is noticed that leaves before the answer; what then comes first makes it wait."""
    door = BusyDoor(app).feed(UPGRADED_SOCKET)
    await door.settle()
    assert not door.wire.is_paused
    door.feed(b"\x81")
    assert door.wire.is_paused
    await door.until_closed()


async def test_a_body_of_single_byte_chunks_is_paused_early(app: Sanic[Any, Any]) -> None:
    """A body counts what it occupies, not only what it says."""
    door = BusyDoor(app).feed(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    door.feed(b"1\r\nx\r\n" * 1_500)
    assert door.wire.is_paused
    await door.until_closed()


async def test_a_body_that_grew_too_large_is_kept_no_longer(app: Sanic[Any, Any]) -> None:
    """Past the limit nothing more is buffered, whoever still sends."""
    door = BusyDoor(app).feed(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    body = door.reader.body
    assert body is not None
    body.limit(1_000)
    for _ in range(50):
        door.feed(b"400\r\n" + b"x" * 1_024 + b"\r\n")
    assert body.buffered_bytes <= 1_000
    with pytest.raises(BodyTooLarge):
        await body.read()
    await door.until_closed()


async def test_a_body_that_grew_too_large_is_never_taken_for_whole(app: Sanic[Any, Any]) -> None:
    """Its last chunk came before anyone read it, as while its request waits for a place: it is refused, not cut."""
    door = BusyDoor(app).feed(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    body = door.reader.body
    assert body is not None
    body.limit(1_000)
    door.feed(b"1f4\r\n" + b"a" * 500 + b"\r\n").feed(b"3e8\r\n" + b"b" * 1_000 + b"\r\n").feed(b"0\r\n\r\n")
    assert body.is_whole
    with pytest.raises(BodyTooLarge):
        body.encode_rest()
    await door.until_closed()


async def test_a_request_line_in_pieces_does_not_disturb_the_request_before_it(app: Sanic[Any, Any]) -> None:
    """What becomes of the next request, a refusal say, leaves the one that is being served as it was."""
    door = BusyDoor(app).feed(SIZED)
    await door.settle()
    assert door.exchange is not None
    served = door.exchange.message
    door.feed(b"G").feed(b"@")
    assert (served.target, served.error, served.body.buffered_bytes > 0) == (b"/s", None, True)
    assert isinstance(door.reader.queue[-1].error, MalformedRequest)
    await door.until_closed()


def test_every_method_that_llhttp_is_given_is_known_to_it() -> None:
    """The list of methods that need no stand-in is right."""
    for method in reader._PARSED_METHODS:
        read = reader.Reader(lambda: None, lambda: None)
        read.feed(method + b" / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert [each.error for each in read.queue] == [None], method


@pytest.mark.parametrize(("count", "is_remembered"), [(10, True), (5_000, False)])
def test_only_short_heads_are_remembered(count: int, is_remembered: bool) -> None:
    """What a waiting connection remembers of its last request is little, however much that said."""
    fields = b"\r\nHost: h\r\nX: %b\r\n\r\n" % (b"x" * count)
    made = reader.Reader(lambda: None, lambda: None)
    for _ in range(2):
        made.feed(b"GET / HTTP/1.1" + fields)
    assert [message.host for message in made.queue] == [b"h", b"h"]
    assert (made._plain_fields == fields) is is_remembered
