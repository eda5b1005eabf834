"""Header fields on their way through: what ends here, what is ours to say, what passes. Pure, in bytes.

Lists, not mappings: repeated fields (Set-Cookie) and their order are part of the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from functools import lru_cache
from typing import Final

Field = tuple[bytes, bytes]

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
"""RFC 9110 section 7.6.1, with the fields that old clients send in spite of it and RFC 7540's upgrade setting."""

RESERVED: Final = frozenset(
    {
        b"host",
        b"authorization",
        b"forwarded",
        b"proxy",
        b"x-request-id",
        b"x-organization-id",
        b"x-plan-tier",
        b"x-real-ip",
    }
)
"""What backends believe because we say it, and the credential, which ends here. `x-forwarded*` belongs to it too.
`Proxy` is no field of HTTP, but a CGI program takes it for HTTP_PROXY (CVE-2016-5385)."""

FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
NAME_BYTES_MAX: Final = 64
"""Of a name that is remembered: thousands of up to 16 kB each would fill the memory that everybody shares."""
_ENDS_HERE: Final = HOP_BY_HOP | RESERVED

_SIGNS: Final = bytes.maketrans(b"!#$%&'*+.^_`|~", b"-" * 14)


class Fate(Enum):
    """What becomes of a field on its way."""

    PASSES = 1
    ENDS = 2
    CONNECTION = 3
    TE = 4


def canonical(name: bytes) -> bytes:
    """The name as a backend may read it: to CGI and WSGI, `-` and `_` are the same (RFC 3875 section 4.1.18), and some
    servers make one of them of every other sign as well."""
    return name.lower().translate(_SIGNS)


def connection_options(fields: Iterable[Field]) -> frozenset[bytes]:
    """The options of every Connection field (RFC 9110 section 7.6.1), as `canonical` names."""
    found: set[bytes] = set()
    for name, value in fields:
        if name.lower() == b"connection":
            found.update(canonical(option.strip(b" \t")) for option in value.split(b","))
    return frozenset(found)


def has_name(fields: Iterable[Field], name: bytes) -> bool:
    """Whether there is a field `name` (given in lower case)."""
    size = len(name)
    for field, _ in fields:  # noqa: SIM110 - a generator would cost twice as much
        if len(field) == size and field.lower() == name:
            return True
    return False


def values(fields: Iterable[Field], name: bytes) -> list[bytes]:
    """Every value of the field `name` (given in lower case), in order."""
    return [value for field, value in fields if field.lower() == name]


def _to_backend(name: bytes) -> Fate:
    key = canonical(name)
    if key == b"connection" or key == b"te":
        return Fate.CONNECTION if key == b"connection" else Fate.TE
    return Fate.ENDS if key in _ENDS_HERE or key in FRAMING or key.startswith(b"x-forwarded") else Fate.PASSES


def _to_client(name: bytes) -> Fate:
    key = canonical(name)
    if key == b"connection":
        return Fate.CONNECTION
    ends = key in HOP_BY_HOP or key == b"x-request-id" or key.startswith((b"x-ratelimit", b"ratelimit"))
    return Fate.ENDS if ends else Fate.PASSES


# The names that clients and backends use are few: what is to become of each is worked out once.
_known_to_backend: Final = lru_cache(maxsize=4096)(_to_backend)
_known_to_client: Final = lru_cache(maxsize=4096)(_to_client)


def _fate_to_backend(name: bytes) -> Fate:
    return _known_to_backend(name) if len(name) <= NAME_BYTES_MAX else _to_backend(name)


def _fate_to_client(name: bytes) -> Fate:
    return _known_to_client(name) if len(name) <= NAME_BYTES_MAX else _to_client(name)


@lru_cache(maxsize=256)
def _names_fields(connection: bytes) -> bool:
    """Whether a Connection field's value names fields that would pass otherwise. Mostly it says keep-alive or close."""
    return not connection_options([(b"connection", connection)]) <= HOP_BY_HOP | FRAMING | {b"close"}


def _without_named(fields: Sequence[Field]) -> list[Field]:
    """`fields` without Connection and what it names, except the ones that carry the message itself."""
    named = connection_options(fields) - FRAMING - {b"te"}
    return [(name, value) for name, value in fields if (key := canonical(name)) not in named and key != b"connection"]


def to_backend(fields: Sequence[Field]) -> list[bytes]:
    """A client's fields that go on, as header lines. Framing fields are left out: the caller frames what it sends.

    A field that only differs from a reserved one by case or underscores is dropped, and so is what the client's own
    Connection field names, except the fields that carry the message itself.
    """
    lines = []
    takes_trailers = False
    for name, value in fields:
        fate = _fate_to_backend(name)
        if fate is Fate.PASSES:
            lines.append(b"%b: %b\r\n" % (name, value))
        elif fate is Fate.TE:
            takes_trailers = takes_trailers or _names_trailers(value)
        elif fate is Fate.CONNECTION and _names_fields(value):
            return to_backend(_without_named(fields))
    if takes_trailers:
        lines.append(b"TE: trailers\r\nConnection: TE\r\n")  # we pass them on (RFC 9110 section 10.1.4)
    return lines


def _names_trailers(te: bytes) -> bool:
    return any(coding.strip(b" \t").lower() == b"trailers" for coding in te.split(b","))


def to_client(fields: Sequence[Field], *, has_length: bool = True) -> list[bytes]:
    """A backend's fields that go on, as header lines: without hop-by-hop ones, limits of its own and X-Request-ID.

    Content-Length stays (it is the backend's framing, and for HEAD and 304 a statement) unless the status forbids it
    (`has_length` False: 1xx and 204, RFC 9110 section 8.6); Transfer-Encoding does not.
    """
    lines = []
    for name, value in fields:
        fate = _fate_to_client(name)
        if fate is Fate.PASSES:
            lines.append(b"%b: %b\r\n" % (name, value))
        elif fate is Fate.CONNECTION and _names_fields(value):
            return to_client(_without_named(fields), has_length=has_length)
    return lines if has_length else [line for line in lines if line[:15].lower() != b"content-length:"]


def trailers(fields: Sequence[Field]) -> list[bytes]:
    """Trailer fields as lines, without those that may not come late (RFC 9110 section 6.5.1) or are ours to say."""
    kept = []
    for name, value in fields:
        key = canonical(name)
        if (
            key in _ENDS_HERE
            or key in FRAMING
            or key == b"trailer"
            or key.startswith((b"x-forwarded", b"x-ratelimit", b"ratelimit"))
        ):
            continue
        kept.append(b"%b: %b\r\n" % (name, value))
    return kept
