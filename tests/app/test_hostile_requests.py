"""Hostile requests, from the corpus: refused and the connection closed, or forwarded as one that all read alike."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.app.corpus_forwarded import FORWARDED, SMUGGLED, STRANGE_METHODS, Forwarded, request
from tests.app.corpus_framing import CHUNKS, FRAMINGS, LENGTHS
from tests.app.corpus_heads import FIELDS, HOSTS, LIMITS, LINES
from tests.app.reading_servers import Read, installed
from tests.app.test_relay import AUTH, MEGABYTE, resident_bytes
from tests.backend import Backend, Connection
from tests.gateway import Gateway, until
from tools.readers import Request, requests_by_h11, requests_by_llhttp

REFUSED = {**FRAMINGS, **LENGTHS, **CHUNKS, **FIELDS, **LINES, **HOSTS, **LIMITS}
NEXT = request(start=b"GET /next HTTP/1.1")
HOP = frozenset(
    {b"host", b"connection", b"te", b"transfer-encoding", b"content-length", b"keep-alive", b"upgrade", b"expect"}
)
"""Fields that a proxy in front of a reader (nginx) writes anew."""


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_be_read_differently_is_refused(case: str, gateway: Gateway, backend: Backend) -> None:
    """The promised status in the envelope, then a closed connection: what was smuggled behind it is not looked at."""
    raw, status = REFUSED[case]
    with gateway.client() as client:
        reply = client.send(raw + SMUGGLED).reply()
        assert reply.status == status, reply
        assert reply.json()["error"]["code"] == status
        assert reply.json()["request_id"] == reply["X-Request-ID"]
        assert client.rest() == b""
    assert backend.requests == []


@pytest.mark.parametrize("case", [case for case in REFUSED if case.startswith("bare")])
def test_a_line_that_cannot_become_one_is_refused_at_once(case: str, gateway: Gateway) -> None:
    """With nothing behind it, too: no line end of HTTP's is waited for where another one stands."""
    raw, status = REFUSED[case]
    assert gateway.ask(raw).status == status


def test_refusals_do_not_depend_on_what_came_before(gateway: Gateway, backend: Backend) -> None:
    """The same behind a good request on one connection: that one is answered, then comes the refusal and the end."""
    for case, (raw, status) in REFUSED.items():
        with gateway.client() as client:
            client.send(NEXT + raw + SMUGGLED)
            assert [client.reply().status for _ in range(2)] == [200, status], case
            assert client.rest() == b"", case
    assert len(backend.requests) == len(REFUSED)


def test_refusals_are_logged_without_a_traceback(gateway: Gateway, backend: Backend) -> None:
    """Whatever comes in, the worker has nothing to complain of: no exception in a callback, one access line each."""
    ids = {gateway.ask(raw + SMUGGLED)["X-Request-ID"]: status for raw, status in REFUSED.values()}
    gateway.access(list(ids)[-1])
    assert {line["request_id"]: line["status"] for line in gateway.log() if line.get("request_id") in ids} == ids
    assert "Traceback" not in gateway.output
    assert [line for line in gateway.log() if "message" in line and line["level"] == "error"] == []


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Read]]:
    """Those who read what the backend got: h11 and llhttp always, Node and nginx where they are installed."""
    with installed(tmp_path_factory.mktemp("readers")) as servers:
        yield {"h11": requests_by_h11, "llhttp": requests_by_llhttp, **servers}


def end_to_end(seen: Request) -> tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]:
    """What every reader must agree on."""
    return seen.method, seen.target, [field for field in seen.fields if field[0] not in HOP], seen.body


def is_refusable(name: str, raw: bytes, wanted: Forwarded) -> bool:
    """Whether a reader may refuse what HTTP allows: servers know some methods only, and nginx has rules for paths."""
    method, _, target = wanted.line.partition(b" ")
    if method in STRANGE_METHODS:
        return name != "h11"
    climbs = target.startswith((b"/../", b"/%2e%2e", b"/%00", b"/%zz")) or target in (b"*", b"/%")
    return name == "nginx" and (method == b"TRACE" or climbs or raw.count(b"\r\nExpect: ") > 1)


def check(seen: Request, wanted: Forwarded) -> None:
    """The request as it was meant: line, body, its fields in their order, and nothing of what ends at a gateway."""
    assert seen.method + b" " + seen.target == wanted.line
    assert seen.body == wanted.body
    assert seen.trailers == wanted.trailers
    names = {name for name, _ in wanted.fields}
    assert tuple(field for field in seen.fields if field[0] in names) == wanted.fields
    present = [name for name, _ in seen.fields]
    assert not set(wanted.absent) & set(present)
    assert [present.count(name) for name in (b"host", b"x-organization-id", b"x-plan-tier")] == [1, 1, 1]
    assert dict(seen.fields)[b"x-organization-id"] == b"org_1"


@pytest.mark.parametrize("case", FORWARDED)
def test_what_is_well_formed_is_one_request_to_everybody(
    case: str, gateway: Gateway, backend: Backend, readers: dict[str, Read]
) -> None:
    """It arrives once, as it was meant, every reader reads the same in it; and the connection can be used again."""
    wanted = FORWARDED[case]
    with gateway.client() as client:
        assert client.send(wanted.raw).reply().status == 200
        if b"HTTP/1.0" not in wanted.raw:
            assert client.send(NEXT).reply().status == 200
    raw = backend.requests[0]
    assert len(backend.requests) == (1 if b"HTTP/1.0" in wanted.raw else 2)
    reading = requests_by_h11(raw)
    assert (len(reading.requests), reading.end) == (1, "clean")
    check(reading.requests[0], wanted)
    for name, read in readers.items():
        other = read(raw)
        if other.end == "refused" and not other.requests and is_refusable(name, raw, wanted):
            continue
        assert (len(other.requests), other.end) == (1, "clean"), name
        assert end_to_end(other.requests[0]) == end_to_end(reading.requests[0]), name


# --- memory ---


@pytest.mark.parametrize("fields", [b"Host: g\r\n", AUTH], ids=["no key", "a key"])
def test_names_that_nobody_says_twice_leave_nothing_behind(gateway: Gateway, backend: Backend, fields: bytes) -> None:
    """Thousands of long field names, from a stranger and from a customer, are forgotten with their requests."""
    before = resident_bytes(gateway)
    with gateway.client() as client:
        for number in range(4096):
            name = b"X-%d-%b" % (number, (b"a" if fields is AUTH else b"b") * 15_000)
            client.send(b"GET / HTTP/1.1\r\n%b%b: 1\r\n\r\n" % (fields, name)).reply()
    assert resident_bytes(gateway) - before < 16 * MEGABYTE


# --- pipelines ---


def test_pipelined_requests_are_answered_in_order(gateway: Gateway, backend: Backend) -> None:
    """Every well-formed request of HTTP/1.1 in one write: as many answers, in order, each request once."""

    def echo(connection: Connection) -> None:
        while connection.read():
            target = connection.head.split(b" ")[1]
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))

    backend.script = echo
    sent = [each for each in FORWARDED.values() if b"HTTP/1.0" not in each.raw]
    with gateway.client() as client:
        for start in range(0, len(sent), 40):
            some = sent[start : start + 40]
            client.send(b"".join(each.raw for each in some))
            assert [client.reply().body for _ in some] == [each.line.split(b" ")[1] for each in some]
    assert len(backend.requests) == len(sent)


def test_an_error_amid_pipelined_requests_comes_last(gateway: Gateway, backend: Backend) -> None:
    """What came before the malformed request is answered, then it gets its 400, then the connection ends."""
    with gateway.client() as client:
        client.send(NEXT * 3 + b"GET /bad HTTP/9.9\r\n\r\n" + SMUGGLED * 3)
        assert [client.reply().status for _ in range(4)] == [200, 200, 200, 400]
        assert client.rest() == b""
    assert len(backend.requests) == 3


# --- truncation ---

CUT = {name: FORWARDED[name] for name in ("length", "chunk extensions", "trailers", "a body that is a request")}


@pytest.mark.parametrize("case", CUT)
def test_a_truncated_request_is_never_a_whole_one(case: str, gateway: Gateway, backend: Backend) -> None:
    """Wherever a client stops and hangs up, the backend gets no whole request, and nobody waits for the rest."""
    raw = CUT[case].raw
    streams: list[bytes] = []

    def record(connection: Connection) -> None:
        while connection.more():
            pass
        streams.append(connection.buffer)

    backend.script = record
    for cut in range(1, len(raw)):
        with gateway.client() as client:
            client.send(raw[:cut])
    gateway.get("/health/live")
    until(lambda: len(streams) == backend_connections(backend), "the connections to the backend to end")
    assert [stream for stream in streams if requests_by_h11(stream).requests] == []
    assert [stream for stream in streams if requests_by_llhttp(stream).requests] == []


def backend_connections(backend: Backend) -> int:
    return len(backend._open)
