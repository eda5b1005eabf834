"""What a backend says to one request after the other: strictly parsed by llhttp, or known already. No I/O.

In bounded memory: whoever feeds it looks at the bytes of the body that wait, and pauses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Literal

import httptools

from app.core.relay import upgrade
from app.core.relay.headers import FRAMING
from app.core.relay.known_lines import FIELDS_MAX, KnownHead, KnownLines

Fields = list[tuple[bytes, bytes]]
Interim = Callable[[int, Fields], None]
Framing = Literal["length", "chunked", "close", "none"]

HEAD_BYTES_MAX: Final = 65_536
"""Also what may come between two pieces of a body: chunk extensions, trailers."""
INTERIM_MAX: Final = 16
SWITCHING: Final = 101
HOPE: Final = 16
HOPELESS_LOOKS: Final = 32
"""After so many answers in a row with a line that was not known, only each 32nd is looked at for known ones."""


_known = KnownLines()
_REASON: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


@lru_cache(maxsize=1024)  # the reasons that backends use are few
def _is_reason(reason: bytes) -> bool:
    """RFC 9112 section 4. llhttp takes any control character but the two of a line's end."""
    return _REASON.fullmatch(reason) is not None


class Malformed(Exception):
    """What the backend sent is no HTTP that may be passed on. The cause of a BackendUnavailable, for the log."""


class AnswerReader:
    """The answer to the request under way, as far as it is here: what a Peer is beside a connection.

    Inherited and not held by it: with known lines an answer is read in less time than a few look-ups take.
    """

    __slots__ = (
        "_buffered_bytes",
        "_chunks",
        "_head_only",
        "_hope",
        "_in_head",
        "_interim_count",
        "_keep_alive",
        "_on_interim",
        "_parser",
        "_protocol",
        "_unbodied_bytes",
        "fields",
        "framed_by",
        "has_head",
        "is_complete",
        "known",
        "reason",
        "status",
        "trailers",
    )

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._hope = HOPE
        self._reset(head_only=False, on_interim=None, protocol=None)

    def _reset(self, head_only: bool, on_interim: Interim | None, protocol: bytes | None) -> None:
        self._head_only = head_only
        self._protocol = protocol
        self._on_interim = on_interim
        self._interim_count = 0
        self._unbodied_bytes = 0
        self._chunks: list[bytes] = []
        self._buffered_bytes = 0
        self._keep_alive = False
        self._in_head = True
        self.has_head = False
        self.is_complete = False
        self.status = 0
        self.reason = b""
        self.fields: Fields = []
        self.trailers: Fields = []
        self.known: KnownHead | None = None
        """The answer's head, where llhttp was not asked."""
        self.framed_by: Framing = "close"

    @property
    def has_answered(self) -> bool:
        """Whether a byte of an answer to this request has come."""
        return self.has_head or self._interim_count > 0 or self._unbodied_bytes > 0

    @property
    def has_bytes(self) -> bool:
        """Whether there is something to take, or nothing more will come."""
        return bool(self._chunks) or self.is_complete

    # --- known lines ---

    def _may_repeat(self) -> bool:
        """Whether an answer begins here, and this backend does say the same lines again and again."""
        if self._unbodied_bytes or self._interim_count or self._head_only or not self._in_head:
            return False
        if self._hope > 0:
            return True
        self._hope -= 1
        return self._hope % HOPELESS_LOOKS == 0

    def _repeats(self, data: bytes) -> bool:
        """Takes a whole answer whose lines are all known. llhttp, between two messages, need not hear of it."""
        end = data.find(b"\r\n\r\n")
        known = _known.read(data[:end]) if end > 0 else None
        if known is None or len(data) != end + 4 + known.length:
            if self._hope > 0:
                self._hope -= 1
            return False
        self._hope = HOPE
        self.known, self.status, self.reason, self.fields = known, known.status, known.reason, known.fields
        self.framed_by = "length"
        self._in_head = False
        self._keep_alive = self.has_head = self.is_complete = True
        if known.length:
            self._chunks.append(data[end + 4 :])
        return True

    def _learn(self, data: bytes) -> None:
        if self._keep_alive and self.framed_by == "length" and self._parser.get_http_version() == "1.1":
            _known.learn(data[: data.find(b"\r\n\r\n")], self.status, self.reason, self.fields)

    # --- llhttp's side ---

    def on_message_begin(self) -> None:
        if not self._in_head:
            # In one segment with the first: it may neither change that one nor become the next request's answer.
            raise Malformed("a second answer")

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        fields = self.fields if self._in_head else self._trailers_with(name)
        if len(fields) >= FIELDS_MAX:
            raise Malformed("too many fields")
        fields.append((name, value.rstrip(b" \t")))

    def _trailers_with(self, name: bytes) -> Fields:
        if name.lower() in FRAMING:
            raise Malformed("framing among the trailers")
        return self.trailers

    def on_headers_complete(self) -> None:
        status, version = self._parser.get_status_code(), self._parser.get_http_version()
        if version not in ("1.1", "1.0") or status > 999 or not _is_reason(self.reason):
            raise Malformed(f"HTTP/{version} {status}")
        if status < 200:
            if status == SWITCHING and self._protocol is not None:
                self._agree(self._protocol)
            else:
                self._interim(status)
            return
        self.status = status
        self.framed_by = self._framing(status)
        # RFC 9112 section 6.1: chunked in HTTP/1.0 is suspect, the connection is not to be used again
        self._keep_alive = self._parser.should_keep_alive() and not (version == "1.0" and self.framed_by == "chunked")
        self._in_head = False
        self.has_head = True
        if self._head_only:
            # llhttp cannot know that the request was HEAD: it would wait for the body that the head announces.
            self.is_complete = True
            self._parser = httptools.HttpResponseParser(self)

    def _agree(self, protocol: bytes) -> None:
        if not (self._parser.should_upgrade() and upgrade.agrees(protocol, self.fields)):
            raise Malformed("a switch to another protocol than was asked for")
        self.status = SWITCHING
        self.framed_by = "none"
        self._in_head = False

    def _interim(self, status: int) -> None:
        self._interim_count += 1
        if status < 100 or status == SWITCHING or self._interim_count > INTERIM_MAX:
            raise Malformed(f"status {status}, interim answer {self._interim_count}")
        self._framing(status)
        if self._on_interim is not None:
            self._on_interim(status, self.fields)

    def _framing(self, status: int) -> Framing:
        framing: Framing = "close"
        for name, value in self.fields:
            key = name.lower()
            if key == b"transfer-encoding":
                if value.lower() != b"chunked" or framing == "chunked":
                    raise Malformed("a transfer coding other than chunked, once")
                framing = "chunked"
            elif key == b"content-length":
                framing = "length"
        return "none" if self._head_only or status in (204, 304) else framing

    def on_body(self, data: bytes) -> None:
        if self._head_only:
            raise Malformed("a body for HEAD")
        self._unbodied_bytes = 0
        self._chunks.append(data)
        self._buffered_bytes += len(data)

    def on_message_complete(self) -> None:
        if self._in_head:  # an interim answer; the final one follows
            self.fields = []
            self.reason = b""
            self._unbodied_bytes = 0
            return
        self._keep_alive = self._keep_alive and self._parser.should_keep_alive()  # a trailer may have said close
        self.is_complete = True
