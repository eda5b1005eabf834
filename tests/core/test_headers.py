"""What passes, what ends here, and that no spelling gets a reserved field through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.relay import headers

OURS = sorted(headers.RESERVED | {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded"})
SIGNS = (b"-", b"_", b".", b"~")
HARMLESS = st.sampled_from([b"Accept", b"Cookie", b"X-Trace", b"content-type", b"X_Under_Score"])
Fields = list[tuple[bytes, bytes]]


@st.composite
def spelled(draw: st.DrawFn, names: list[bytes]) -> bytes:
    """One of `names` in any case, its hyphens written as signs that one server or another takes for the same."""
    name = draw(st.sampled_from(names))
    pairs = [(chr(c).upper().encode(), bytes([c])) if c != 0x2D else SIGNS for c in name]
    return b"".join(draw(st.sampled_from(pair)) for pair in pairs)


def as_cgi(lines: list[bytes]) -> set[bytes]:
    """The names as a WSGI or CGI backend sees them."""
    return {name.upper().replace(b"-", b"_") for line in lines for name in [line.partition(b":")[0]]}


@given(
    st.lists(st.tuples(spelled(OURS + sorted(headers.HOP_BY_HOP | headers.FRAMING)), st.just(b"forged")), min_size=1),
    st.lists(st.tuples(HARMLESS, st.just(b"v")), max_size=3),
    st.randoms(),
)
def test_no_spelling_of_a_reserved_field_reaches_a_backend(forged: Fields, harmless: Fields, random: object) -> None:
    """However a reserved or hop-by-hop name is written and repeated, it ends here; all others go on, in order."""
    fields = [*forged, *harmless]
    random.shuffle(fields)  # type: ignore[attr-defined]
    passed = headers.to_backend(fields)
    assert not any(b"forged" in line for line in passed)
    assert passed == [b"%b: %b\r\n" % field for field in fields if field in harmless]


@given(spelled([b"x-trace", b"cookie", b"x-a"]), spelled([b"x-trace", b"cookie", b"x-a"]))
def test_fields_named_by_connection_end_here(name: bytes, option: bytes) -> None:
    """A field that Connection names is dropped with it, however the two are spelled; one it does not name passes."""
    is_same = headers.canonical(name) == headers.canonical(option)
    fields = [(b"Connection", b"close , " + option + b"\t"), (name, b"v"), (b"cONNECTION", b"")]
    passed: list[bytes] = [] if is_same else [b"%b: v\r\n" % name]
    assert headers.to_backend(fields) == passed
    assert headers.to_client(fields) == passed


@pytest.mark.parametrize(
    "option", [b"Host", b"Content-Length", b"content_length", b"Transfer-Encoding", b"Authorization"]
)
def test_connection_cannot_take_the_message_itself_away(option: bytes) -> None:
    """Naming a framing field in Connection changes nothing about the framing that clients are told."""
    fields = [(b"Connection", option), (b"Content-Length", b"5")]
    assert headers.to_client(fields) == [b"Content-Length: 5\r\n"]
    assert headers.to_backend(fields) == []  # framed by the caller, for the body that it sends


@pytest.mark.parametrize("value", [b"trailers", b"deflate;q=0.5, Trailers", b" trailers\t"])
def test_trailers_are_asked_for_once(value: bytes) -> None:
    """TE passes only as `trailers`, once, with the Connection option that it needs."""
    fields = [(b"TE", value), (b"te", value)]
    assert headers.to_backend(fields) == [b"TE: trailers\r\nConnection: TE\r\n"]


@pytest.mark.parametrize("value", [b"gzip", b"xtrailers", b"trailersx, deflate", b""])
def test_other_te_values_end_here(value: bytes) -> None:
    """A transfer coding that the client would take from us is nothing to the backend."""
    assert headers.to_backend([(b"TE", value)]) == []


def test_repeated_fields_keep_their_order() -> None:
    """Several Set-Cookie fields pass as several, in order, among the others."""
    fields = [(b"Set-Cookie", b"a=1"), (b"X", b"1"), (b"set-cookie", b"b=2, c=3"), (b"Set-Cookie", b"")]
    assert headers.to_client(fields) == [b"%b: %b\r\n" % field for field in fields]


def test_a_backends_own_limits_and_ids_do_not_reach_clients() -> None:
    """Fields that we answer with ourselves are dropped in any spelling of case; Retry-After is the backend's to say."""
    names = [b"X-RateLimit-Limit", b"x-ratelimit-remaining-minute", b"RATELIMIT", b"RateLimit-Policy", b"X-Request-Id"]
    kept = (b"Retry-After", b"7")
    assert headers.to_client([*((name, b"1") for name in names), kept]) == [b"Retry-After: 7\r\n"]


@pytest.mark.parametrize("name", sorted(headers.HOP_BY_HOP))
def test_hop_by_hop_fields_of_a_backend_end_here(name: bytes) -> None:
    """What a backend says about its connection to us is not told to clients."""
    assert headers.to_client([(name.title(), b"x")]) == []


def test_a_length_is_not_told_where_it_may_not_stand() -> None:
    """204 and 1xx answers carry no Content-Length, whatever the backend sent (RFC 9110 section 8.6)."""
    assert headers.to_client([(b"Content-Length", b"5"), (b"A", b"b")], has_length=False) == [b"A: b\r\n"]


def test_trailers_cannot_say_what_a_head_may_not() -> None:
    """Of trailer fields, framing, reserved, hop-by-hop and limit fields are dropped, the others pass."""
    names = [*headers.FRAMING, *OURS, *headers.HOP_BY_HOP, b"Trailer", b"X_Organization_ID", b"RateLimit"]
    assert headers.trailers([*((name, b"x") for name in names), (b"X-Checksum", b"1")]) == [b"X-Checksum: 1\r\n"]


def test_values_are_found_in_order_whatever_their_case() -> None:
    """`values` gives every value of a name, and of no other name that looks like it."""
    assert headers.values([(b"A", b"1"), (b"a", b"2"), (b"A_", b"3")], b"a") == [b"1", b"2"]
