"""Backends' answers as they should not be, and what a client may see of them: one answer, or a visible failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hypothesis import strategies as st

from tools.fuzz_requests import HANG_SECONDS, PLAIN, cut, demand
from tools.fuzz_stand import KEY, Ending, Script, Stand
from tools.readers import Answer, Answers, answers_by_h11, answers_by_llhttp

_HEAD: Final = b"%b /ask HTTP/1.%d\r\nHost: h\r\nAuthorization: Bearer " + KEY + b"\r\nConnection: close\r\n"
ASKED: Final = (
    _HEAD % (b"GET", 1) + b"\r\n",
    _HEAD % (b"GET", 1) + b"\r\n",
    _HEAD % (b"HEAD", 1) + b"\r\n",
    _HEAD % (b"GET", 0) + b"\r\n",
    _HEAD % (b"POST", 1) + b"Content-Length: 3\r\n\r\nabc",
    _HEAD % (b"POST", 1) + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
)
GOOD: Final = _HEAD % (b"GET", 1) + b"\r\n"
STATUS_LINES: Final = (
    *(b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not  Found", b"HTTP/1.1 500 ", b"HTTP/1.1 299"),
    *(b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 200 \xff"),
)
STRANGE_LINES: Final = (
    *(b"HTTP/1.1 000 Zero", b"HTTP/1.1 099 Low", b"HTTP/1.1 999 High", b"HTTP/1.1 1000 Higher", b"HTTP/1.1 20 Short"),
    *(
        b"HTTP/1.1 101 Switching Protocols",
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.1 199 Odd",
        b"HTTP/0.9 200 OK",
        b"200 OK",
    ),
    *(
        b"HTTP/2.0 200 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 +200 OK",
        b"HTTP/1.1 2OO OK",
        b" HTTP/1.1 200 OK",
        b"GET / HTTP/1.1",
    ),
    *(
        b"HTTP/1.1 200 O\rK",
        b"HTTP/1.1 200 O\nSet-Cookie: evil=1",
        b"HTTP/1.1 200 O\0K",
        b"http/1.1 200 OK",
        b"ICY 200 OK",
    ),
)
INTERIM: Final = (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n")
SPOILT: Final = (
    b"Content-Length: 2",
    b"Content-Length: 9",
    b"Content-Length: 2, 2",
    b"Content-Length: +2",
    b"Content-Length: -1",
    b"Content-Length : 2",
    b"Content-Length: 99999999999999999999",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding:\r\n chunked",
    b"X: y\nSet-Cookie: evil=1",
    b"X: y\rSet-Cookie: evil=1",
    b"X: y\r\n\tSet-Cookie: evil=1",
    b"X: a\0b",
    b"X Y: z",
    b"X : y",
    b": y",
    b"\xe2\x84\xaaeep: y",
    b"Connection: close",
    b"Connection: X-A, Set-Cookie",
    b"Upgrade: websocket\r\nConnection: Upgrade",
    b"X-Request-ID: evil",
    b"RateLimit: evil",
    b"Trailer: X-T",
    b"X-Big: " + b"y" * 70_000,
    b"\r\n".join([b"X-Many: y"] * 300),
)
TOKENS: Final = (
    *(
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\n\n",
        b" ",
        b":",
        b",",
        b";",
        b"0",
        b"5",
        b"-",
        b"+",
        b"\0",
        b"\x7f",
        b"\xff",
    ),
    *(
        b"chunked",
        b"0\r\n\r\n",
        b"0x",
        b"ffffffffffffffff",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        *INTERIM,
    ),
)
OURS: Final = frozenset({b"x-request-id", b"connection", b"content-length", b"transfer-encoding", b"date"})


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a client asks and a backend answers. `is_pristine`: nothing was spoilt, the answer has to come through."""

    asked: bytes
    script: Script
    is_pristine: bool


@st.composite
def _wellformed(draw: st.DrawFn) -> tuple[bytes, bool]:
    """An answer as RFC 9112 has it, and whether it ends by itself."""
    line = draw(st.sampled_from(STATUS_LINES))
    lines = [line, *draw(st.lists(st.sampled_from((*PLAIN, b"Set-Cookie: a=1", b"Set-Cookie: b=2")), max_size=3))]
    body = draw(st.sampled_from([b"", b"ok", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"]))
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    if b" 204 " in line or b" 304 " in line:
        return b"\r\n".join(lines) + b"\r\n\r\n", True
    if b"/1.0" in line and framing == "chunked":
        framing = "close"
    if framing == "length":
        return b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body, True
    if framing == "close":
        return b"\r\n".join(lines) + b"\r\n\r\n" + body, False
    chunks = b"%x;a=b\r\n%b\r\n" % (len(body), body) if body else b""
    trailer = draw(st.sampled_from([b"", b"X-T: 1\r\n"]))
    return b"\r\n".join(
        [*lines, b"Transfer-Encoding: chunked"]
    ) + b"\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n", True


def _spoil(draw: st.DrawFn, data: bytes) -> bytes:
    ends = [at + 2 for at in range(min(len(data), 500)) if data.startswith(b"\r\n", at)]
    way = draw(st.sampled_from(["field", "field", "spot", "line", "end", "cut", "after"]))
    if way == "field" and ends:
        at = draw(st.sampled_from(ends))
        return data[:at] + draw(st.sampled_from(SPOILT)) + b"\r\n" + data[at:]
    if way == "line":
        return draw(st.sampled_from(STRANGE_LINES)) + data[max(0, data.find(b"\r\n")) :]
    if way == "end" and ends:
        at = draw(st.sampled_from(ends))
        return data[: at - 2] + draw(st.sampled_from([b"\n", b"\r", b"\n\r", b"", b"\r\n "])) + data[at:]
    if way == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if way == "after":
        return data + draw(
            st.sampled_from([b"x", b"\r\n", b"HTTP/1.1 500 Evil\r\nContent-Length: 4\r\n\r\nevil", *INTERIM])
        )
    at = draw(st.integers(0, len(data)))
    token = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=2)))
    return data[:at] + token + data[at + draw(st.integers(0, 3)) :]


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    """An answer with up to twenty interim ones before it, spoilt in up to three ways."""
    data, ends_itself = draw(_wellformed())
    interim = draw(st.sampled_from([0, 0, 0, 1, 3, 20]))
    data = draw(st.sampled_from(INTERIM)) * interim + data
    ways = draw(st.integers(0, 3))
    for _ in range(ways):
        data = _spoil(draw, data)
    asked = draw(st.sampled_from(ASKED))
    endings: list[Ending] = ["close", "keep"] if ends_itself and not ways else ["close", "close", "reset"]
    script = Script(cut(draw, data), draw(st.sampled_from(endings)), is_early=draw(st.booleans()))
    is_pristine = not ways and interim < 16 and (ends_itself or script.ending == "close")
    return Exchange(asked, script, is_pristine)


async def check_exchange(stand: Stand, exchange: Exchange) -> bool:
    """Plays it through the gateway, then asks for something good. Whether the answer came through. Raises Violation."""
    method = exchange.asked.partition(b" ")[0]
    said = b"".join(exchange.script.pieces)
    outcome = await stand.ask((exchange.asked,), patience_seconds=HANG_SECONDS, script=exchange.script)
    about = (exchange, outcome.received)
    demand(outcome.is_closed, "the gateway hangs", *about)
    got = answers_by_h11(outcome.received, method)
    if method == b"GET" and b"HTTP/1.0" not in exchange.asked:
        other = answers_by_llhttp(outcome.received)
        demand((got.answers, got.end) == (other.answers, other.end), "clients read different answers", other, *about)
    demand(len(got.answers) <= 1 and got.end != "refused", "more than one answer, or none that can be read", *about)
    came_through = bool(got.answers) and not _is_ours(got.answers[0])
    if came_through:
        _check_same(answers_by_h11(said.lstrip(b"\r\n"), method), got.answers[0], exchange, about)
    demand(came_through or not exchange.is_pristine, "a good answer did not come through", *about)
    await _check_nothing_is_poisoned(stand, about)
    return came_through


def _is_ours(answer: Answer) -> bool:
    """The gateway's own 502 or 504, which carries no field of a backend's."""
    return answer.status in (502, 504) and (b"content-type", b"application/json") in answer.fields and answer.is_whole


def _check_same(said: Answers, got: Answer, exchange: Exchange, about: tuple[object, ...]) -> None:
    """The answer is the backend's first, and looks no more whole than that was."""
    demand(said.answers, "an answer that is none came through", *about)
    first = said.answers[0]
    demand(
        got.status == first.status and first.body.startswith(got.body),
        "another answer than the backend's",
        first,
        *about,
    )
    is_whole = got.is_whole and not (b"HTTP/1.0" in exchange.asked and b"content-length" not in dict(got.fields))
    demand(not is_whole or (first.is_whole and got.body == first.body), "a broken answer looks whole", first, *about)
    strangers = {
        each for each in got.fields if not each[0].startswith((b"x-ratelimit", b"ratelimit")) and each[0] not in OURS
    }
    demand(strangers <= set(first.fields), "fields that the backend did not send", strangers, *about)
    demand((b"x-request-id", b"evil") not in got.fields, "an id that is ours to say", *about)


async def _check_nothing_is_poisoned(stand: Stand, about: tuple[object, ...]) -> None:
    """Whatever that backend said, the next request gets its own answer.

    Or a 502, once: on a kept connection that the backend was just closing.
    """
    for patience in (1, 0):
        outcome = await stand.ask((GOOD,), patience_seconds=HANG_SECONDS)
        answers = answers_by_h11(outcome.received)
        if patience and len(answers.answers) == 1 and _is_ours(answers.answers[0]):
            continue
        bodies = [(answer.status, answer.body) for answer in answers.answers]
        demand(bodies == [(200, b"/ask")] and answers.end == "clean", "the next got another's answer", bodies, *about)
        return
