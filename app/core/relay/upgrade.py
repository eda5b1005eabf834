"""Switching protocols (RFC 9110 section 7.8): what a request may ask for, whether an answer agrees. Pure, in bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from app.core.relay.headers import Field, values

WEBSOCKET: Final = b"websocket"
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}"
_PROTOCOL: Final = re.compile(rb"(%b)(?:/%b)?" % (_TOKEN, _TOKEN))
_CARRIES_REQUESTS: Final = frozenset({b"h2c", b"h2", b"h3", b"http", b"tls"})
"""Never switched to: what follows would be HTTP again, any number of requests that nobody authenticates or counts, on
paths that nobody chose a backend by (h2c smuggling; RFC 9113 section 3.1 has withdrawn that upgrade)."""


def asked_for(fields: Iterable[Field]) -> bytes | None:
    """The one protocol that these request fields ask to switch to; None where the request is to be an ordinary one.

    A server may ignore any Upgrade. Ignored are lists (the backend might take another one than we think), repeated
    fields, what is no protocol, and protocols that carry requests.
    """
    given = values(fields, b"upgrade")
    found = _PROTOCOL.fullmatch(given[0]) if len(given) == 1 else None
    return None if found is None or found[1].lower() in _CARRIES_REQUESTS else given[0]


def agrees(protocol: bytes, fields: Iterable[Field]) -> bool:
    """Whether a 101 with these fields switches to the protocol that was asked for."""
    return [value.lower() for value in values(fields, b"upgrade")] == [protocol.lower()]


def lines(protocol: bytes) -> bytes:
    """The header lines that ask for the switch, or agree to it."""
    return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % protocol
