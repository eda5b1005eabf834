"""The head of a client's request as the door read it: exact bytes, strictly checked."""

from __future__ import annotations

import re
from typing import Final, Literal

from app.body import NO_BODY, Body
from app.core.errors import GatewayError, MalformedRequest, TargetTooLong
from app.core.model import Backend, Organization
from app.core.relay import headers

Fields = list[tuple[bytes, bytes]]
TARGET_BYTES_MAX: Final = 8_192

METHOD_BYTES_MAX: Final = 32
LINE_BYTES_MAX: Final = METHOD_BYTES_MAX + TARGET_BYTES_MAX + len(" " + " HTTP/1.1")

_LINE: Final = re.compile(
    rb"([!#$%%&'*+.^_`|~0-9A-Za-z-]{1,%d}) (/[\x21\x22\x24-\x7e]*|\*) HTTP/1\.([01])" % METHOD_BYTES_MAX
)
"""Only what can be forwarded byte for byte: origin form, and `*` for OPTIONS (RFC 9112 section 3). A fragment (`#`)
belongs to no request target."""
_USER_INFO: Final = re.compile(rb"(?<=:)//[^/?#]*@")
"""Of an absolute target (RFC 3986 section 3.2.1)."""
_INVISIBLE: Final = re.compile(rb"[^\x21-\x7e]")
_METHOD: Final = re.compile(rb"([!#$%%&'*+.^_`|~0-9A-Za-z-]{1,%d})(?: |\Z)" % METHOD_BYTES_MAX)
_BARE_LINE_END: Final = re.compile(rb"\n|\r(?!\Z)")
"""In what has no line end yet."""
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
"""uri-host and port (RFC 9110 section 7.2)."""

NO_TUNNELS: Final = "CONNECT is not supported"
TARGET_EXPECTED: Final = "malformed request target, expected a path that starts with '/'"


class Onward:
    """What an organization's request with these fields, on this connection, says to `backend` around its id."""

    __slots__ = ("after_id", "backend", "before_id", "organization")

    def __init__(self, organization: Organization, backend: Backend, before_id: bytes, after_id: bytes) -> None:
        self.organization = organization
        self.backend = backend
        self.before_id = before_id
        self.after_id = after_id


class Message:
    """One request head. `error` is set instead of everything else that could not be read.

    `onward`: its fields as a backend gets them, once one has been chosen (outbound.py). `digest`: its key's, likewise.
    `upgrade`: the protocol that it asks to switch to, where that may be passed on.
    """

    __slots__ = (
        "body",
        "credentials",
        "digest",
        "error",
        "fields",
        "has_expectation",
        "has_length",
        "host",
        "keep_alive",
        "method",
        "onward",
        "target",
        "upgrade",
        "version",
    )

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.version: Literal["1.0", "1.1"] = "1.1"
        self.fields: Fields = []
        self.host: bytes | None = None
        self.credentials: list[bytes] = []
        self.has_length = self.has_expectation = False
        self.keep_alive = False
        self.body: Body = NO_BODY
        self.upgrade: bytes | None = None
        self.error: GatewayError | None = None
        self.onward: Onward | None = None
        self.digest: bytes | None = None

    @property
    def is_plain(self) -> bool:
        """Whether nothing but the fields' own bytes decides what they mean: no body, expectation, upgrade, farewell."""
        if self.has_length or self.has_expectation or self.upgrade:
            return False
        return self.keep_alive and self.body is NO_BODY

    def repeat(self, earlier: Message) -> None:
        """Takes over what was made of the very same bytes: fields, and what was derived from them."""
        self.fields = earlier.fields
        self.host = earlier.host
        self.credentials = earlier.credentials
        self.onward = earlier.onward
        self.digest = earlier.digest
        self.keep_alive = True

    def read_line(self, data: bytes, end: int) -> GatewayError | None:
        """Takes method, target and version from `data[:end]`. Of a bad line, what the log can use is kept."""
        found = _LINE.fullmatch(data, 0, end)
        if found is None:
            return self._find_fault(data[:end])
        self.method, self.target, minor = found.groups()
        self.version = "1.1" if minor == b"1" else "1.0"
        if self.method == b"CONNECT":
            return MalformedRequest(NO_TUNNELS)
        if self.target == b"*" and self.method != b"OPTIONS":
            return MalformedRequest(TARGET_EXPECTED)
        return TargetTooLong() if len(self.target) > TARGET_BYTES_MAX else None

    def _find_fault(self, line: bytes) -> GatewayError:
        method = _METHOD.match(line)
        if method is None:
            return MalformedRequest("malformed request method")
        self.method = method[1]
        if self.method == b"CONNECT":
            return MalformedRequest(NO_TUNNELS)
        target, _, _ = line[method.end() :].partition(b" ")
        self.target = _loggable(target)
        if len(target) > TARGET_BYTES_MAX:
            return TargetTooLong()
        if _LINE.fullmatch(b"%b %b HTTP/1.1" % (self.method, target)) is None:
            return MalformedRequest(TARGET_EXPECTED)
        return MalformedRequest("malformed request line, expected HTTP/1.1 or HTTP/1.0 after one space")

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for a 100 before it sends its body (RFC 9110 section 10.1.1)."""
        if not self.has_expectation or self.version == "1.0" or self.body is NO_BODY:
            return False
        return any(value.strip().lower() == b"100-continue" for value in headers.values(self.fields, b"expect"))


def _loggable(target: bytes) -> bytes:
    """Of a refused target, what may stand in the log: no fragment, no password, nothing that a terminal would obey."""
    return _INVISIBLE.sub(lambda found: b"\\x%02x" % found[0][0], _USER_INFO.sub(b"//", target.partition(b"#")[0]))


def begins_like_a_request(data: bytes) -> bool:
    """Whether more bytes could make a request line of it: what is none (TLS on this port, say) is answered at once."""
    return _METHOD.match(data) is not None and _BARE_LINE_END.search(data) is None


def judge_host(values: list[bytes], version: str) -> GatewayError | None:
    """Exactly one well-formed Host, which HTTP/1.0 may omit (RFC 9112 section 3.2)."""
    if not values and version == "1.0":
        return None
    if len(values) != 1:
        return MalformedRequest("exactly one Host header is required")
    return None if _HOST.fullmatch(values[0]) else MalformedRequest("malformed Host header")
