"""Clients' requests as they should not be: a grammar, ways to spoil what it makes, and what must become of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hypothesis import strategies as st

from tools.fuzz_stand import KEY, Stand
from tools.readers import Reading, Request, answers_by_h11, answers_by_llhttp, requests_by_h11, requests_by_llhttp

MARK: Final = b"GET /mark HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer sk_test_fuzz@@@\r\nConnection: close\r\n\r\n"
"""The last request of every stream: after it the gateway closes, so nobody needs to wait for what does not come."""
HANG_SECONDS: Final = 8.0
QUIET_SECONDS: Final = 0.2

METHODS: Final = (b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"QUERY", b"FROB")
KNOWN: Final = frozenset(METHODS[:-1])
"""To llhttp."""
TARGETS: Final = (b"/a", b"/a?b=c", b"/%2e%2e//x", b"//evil/x", b"/a/../b", b"/" + b"x" * 300)
PLAIN: Final = (b"X-A: 1", b"X-B:  two words ", b"Cookie: a=b; c=d", b"Accept: */*", b"x-b:", b"X-A: \xc3\xa9")
ODD: Final = (
    b"Connection: keep-alive",
    b"Connection: X-A",
    b"Connection: close, X-B",
    b"Connection: Content-Length, Transfer-Encoding",
    b"TE: trailers",
    b"TE: gzip, trailers",
    b"Keep-Alive: timeout=5",
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMA",
    b"X_Organization_ID: evil",
    b"X-Organization-ID: evil",
    b"X-Forwarded-For: 1.2.3.4",
    b"Content_Length: 7",
    b"Transfer_Encoding: chunked",
    b"Trailer: X-T",
)
"""Legal, and easily mistaken."""
SPOILT: Final = (
    b"Content-Length: 3",
    b"Content-Length: 0",
    b"Content-Length : 3",
    b"Content-Length: +3",
    b"Content-Length: 3, 3",
    b"Content-Length: 0x3",
    b"content-length:\t3",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: Chunked",
    b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding:\r\n chunked",
    b" Transfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rContent-Length: 3",
    b"X: a\r\n b",
    b"X: a\0b",
    b"Host: evil",
    b"Host : h",
    b"Expect: 100-continue",
    b"Authorization: Bearer x",
    b": y",
    b"X Y: z",
)
TOKENS: Final = (
    *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b" ", b"\t", b":", b",", b";", b"0", b"5", b"-", b"+", b"_", b"\0"),
    *(
        b"\x0b",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"chunked",
        b"0\r\n\r\n",
        b"0x",
        b"ffffffffffffffff",
        b"HTTP/1.0",
        b"HTTP/1.1",
    ),
    *(b"GET /smuggled HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer sk_test_fuzz@@@\r\n\r\n", b"Content-Length: 9\r\n"),
)
OURS: Final = frozenset(
    {b"host", b"x-request-id", b"x-organization-id", b"x-plan-tier", b"x-forwarded-for", b"x-forwarded-proto"}
    | {b"x-forwarded-host", b"content-length", b"transfer-encoding", b"te", b"connection"}
)
END_STATUSES: Final = frozenset({400, 408, 413, 414, 431})
STATUSES: Final = END_STATUSES | {200, 401, 403, 429}


@dataclass(frozen=True, slots=True)
class Stream:
    """What a client sends, in pieces. `is_pristine`: nothing was spoilt, so every request of it has to be forwarded."""

    pieces: tuple[bytes, ...]
    is_pristine: bool


def _chunked(draw: st.DrawFn, body: bytes) -> bytes:
    cut = draw(st.integers(0, len(body)))
    extension = draw(st.sampled_from([b"", b"", b";a=b", b';a="x y"']))
    parts = [part for part in (body[:cut], body[cut:]) if part]
    trailer = draw(st.sampled_from([b"", b"", b"X-T: 1\r\n"]))
    return b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts) + b"0\r\n%b\r\n" % trailer


@st.composite
def wellformed(draw: st.DrawFn) -> bytes:
    """One request as RFC 9112 has it."""
    method = draw(st.sampled_from(METHODS))
    lines = [b"%b %b HTTP/1.1" % (method, draw(st.sampled_from(TARGETS))), b"Host: h", b"Authorization: Bearer " + KEY]
    lines += draw(st.lists(st.sampled_from(PLAIN), max_size=3))
    lines += draw(st.lists(st.sampled_from([each for each in ODD if b"close" not in each]), max_size=1))
    body = draw(st.sampled_from([b"", b"abc", b"0\r\n\r\n", b"GET /body HTTP/1.1\r\nHost: h\r\n\r\n"]))
    framing = draw(st.sampled_from(["none", "length", "chunked"]))
    if framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        body = _chunked(draw, body)
    else:
        body = b""
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _spoil_a_field(draw: st.DrawFn, data: bytes) -> bytes:
    """Puts an obfuscated field behind some line."""
    ends = [at + 2 for at in range(len(data)) if data.startswith(b"\r\n", at)]
    at = draw(st.sampled_from(ends))
    return data[:at] + draw(st.sampled_from((*SPOILT, *ODD))) + b"\r\n" + data[at:]


def _spoil_a_spot(draw: st.DrawFn, data: bytes) -> bytes:
    """Overwrites up to three bytes with a token or with anything."""
    at = draw(st.integers(0, len(data)))
    token = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=2)))
    return data[:at] + token + data[at + draw(st.integers(0, 3)) :]


def _spoil_a_line_end(draw: st.DrawFn, data: bytes) -> bytes:
    ends = [at for at in range(len(data)) if data.startswith(b"\r\n", at)]
    at = draw(st.sampled_from(ends))
    return (
        data[:at] + draw(st.sampled_from([b"\n", b"\r", b"\n\r", b"\r\r\n", b"", b"\r\n ", b" \r\n"])) + data[at + 2 :]
    )


def _splice(draw: st.DrawFn, data: bytes) -> bytes:
    """Repeats, moves or removes a stretch."""
    first, second = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
    second = min(second, first + 60)
    at = draw(st.integers(0, len(data)))
    kept = data if draw(st.booleans()) else data[:first] + data[second:]
    return kept[:at] + draw(st.sampled_from([data[first:second], b""])) + kept[at:]


_WAYS: Final = (_spoil_a_field, _spoil_a_field, _spoil_a_spot, _spoil_a_line_end, _splice)


def cut(draw: st.DrawFn, data: bytes) -> tuple[bytes, ...]:
    """In one piece mostly, else in up to four."""
    at = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    return tuple(data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True) if a < b)


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """One to three pipelined requests, spoilt in up to three ways; MARK."""
    data = b"".join(draw(st.lists(wellformed(), min_size=1, max_size=3)))
    ways = draw(st.lists(st.sampled_from(_WAYS), max_size=3))
    for way in ways:
        if b"\r\n" in data:
            data = way(draw, data)
    return Stream(cut(draw, data + MARK), is_pristine=not ways)


# --- what must become of it ---


class Violation(AssertionError):
    """The gateway did what it must not."""


def demand(condition: object, what: str, *about: object) -> None:
    if not condition:
        raise Violation("\n  ".join([what, *map(repr, about)]))


async def check_stream(stand: Stand, stream: Stream) -> bool:
    """Sends it through the gateway. Whether anything of it was forwarded. Raises Violation."""
    meant = requests_by_h11(b"".join(stream.pieces))
    patience = HANG_SECONDS if meant.end == "clean" else QUIET_SECONDS
    outcome = await stand.ask(stream.pieces, patience_seconds=patience)
    meant, about = requests_by_h11(outcome.sent), (outcome,)
    demand(outcome.is_closed or meant.end != "clean", "the gateway hangs", *about)
    seen = outcome.requests
    demand(len(seen) == sum(len(_seen_alike(data)) for data in outcome.arrived), "requests after the answer", *about)
    answers = answers_by_h11(outcome.received)
    by_llhttp = answers_by_llhttp(outcome.received)
    demand(answers == by_llhttp, "clients read different answers", *about)
    demand(answers.end == "clean" or not outcome.is_closed, "an answer that cannot be read", *about)
    demand(outcome.is_cut, "an unfinished request stays at the backend", *about)
    forwarded = [number for number, answer in enumerate(answers.answers) if (b"x-origin", b"1") in answer.fields]
    pending = len(seen) - len(forwarded)
    may_be_lost = not outcome.is_closed or _sent_after_close(meant, len(answers.answers))
    demand(pending == 0 or (pending == 1 and may_be_lost), "a request without an answer", *about)
    for number, request in zip(forwarded + [len(answers.answers)] * pending, seen, strict=True):
        demand(number < len(meant.requests), "a request that is none was forwarded", *about)
        _check_same(meant.requests[number], request, about)
    bodies = [answers.answers[number].body for number in forwarded]
    demand(bodies == [each.target for each in seen[: len(forwarded)]], "another request's answer", *about)
    statuses = [answer.status for answer in answers.answers]
    demand(set(statuses) <= STATUSES, "an unexpected status", statuses, *about)
    demand(not END_STATUSES & set(statuses[:-1]), "an answer after a refusal", *about)
    demand(not stream.is_pristine or set(statuses) == {200}, "a good request was refused", *about)
    demand(not stream.is_pristine or len(statuses) == len(meant.requests), "not all were answered", *about)
    return bool(forwarded)


def _sent_after_close(meant: Reading, number: int) -> bool:
    """Whether that request announced the client's end, and more came: a reset may then overtake its answer."""
    return number + 1 < len(meant.requests) and b"close" in _options(meant.requests[number])


def _options(request: Request) -> set[bytes]:
    """What its Connection fields name, in lower case."""
    values = [value for name, value in request.fields if name == b"connection"]
    return {option.strip(b" \t").lower() for value in values for option in value.split(b",")}


def _seen_alike(data: bytes) -> tuple[Request, ...]:
    """The whole requests that a backend got on one connection, on which h11 and llhttp agree.

    llhttp refuses methods that it does not know, which spoilt requests may have: those are h11's word alone.
    """
    by_h11 = requests_by_h11(data)
    demand(by_h11.end != "refused", "a backend refuses what it was sent", data)
    by_llhttp = requests_by_llhttp(data)
    if by_llhttp.end != "refused" or (by_h11.end == "clean" and {each.method for each in by_h11.requests} <= KNOWN):
        demand(by_h11 == by_llhttp, "two backends read it differently", data)
    return by_h11.requests


def _check_same(meant: Request, seen: Request, about: tuple[object, ...]) -> None:
    """A forwarded request is the one that was meant, and says nothing that is the gateway's to say."""
    line, other = (meant.method, meant.target, meant.body), (seen.method, seen.target, seen.body)
    demand(line == other, "another request than was meant", line, other, *about)
    named = _options(meant)
    passing = {name.partition(b":")[0].lower() for name in PLAIN}
    wanted = [each for each in meant.fields if each[0] in passing and each[0] not in named]
    demand(wanted == [each for each in seen.fields if each[0] in passing], "fields were lost or made", *about)
    strangers = {name for name, _ in seen.fields} - OURS - {name for name, _ in meant.fields}
    demand(not strangers, "fields that nobody sent", strangers, *about)
    for name in (b"host", b"x-organization-id", b"x-plan-tier", b"x-forwarded-for"):
        values = [value for field, value in seen.fields if field == name]
        demand(len(values) == 1 and b"evil" not in values[0], "a field that is ours to say", name, values, *about)
