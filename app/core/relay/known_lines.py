"""Lines of answers' heads that llhttp has read before: what it made of these very bytes still holds. Pure.

Backends say the same lines again and again (Server, Content-Type, the Date of this second). A head of nothing but known
ones need not be parsed, nor need it be worked out again what becomes of them. A line means the same in every head but
for those that frame the message: of these only one Content-Length is taken, everything else is llhttp's to judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.core.relay import headers

FIELDS_MAX: Final = 256
"""Of one answer's head, whoever reads it."""
LINES_MAX: Final = 4_096
LINE_BYTES_MAX: Final = 256
HEADS_MAX: Final = 256
HEAD_BYTES_MAX: Final = 4_096
"""Of a head that is remembered as a whole."""
_JUDGED: Final = frozenset({b"connection", b"transfer-encoding", b"upgrade", b"trailer", b"keep-alive"})

_SECRET: Final = b"set-cookie"
"""Not to be kept in memory beyond its request, and hardly said twice."""


class KnownLine:
    """`passed`: as the client gets it, empty for what ends here. `length`: what a Content-Length says, else -1."""

    __slots__ = ("field", "is_judged", "length", "passed", "shares")

    def __init__(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        self.field = (name, value)
        self.passed = b"".join(headers.to_client([self.field]))
        self.length = int(value) if key == b"content-length" else -1
        self.shares = key == b"access-control-allow-origin"
        self.is_judged = key in _JUDGED and not (key == b"connection" and value.lower() == b"keep-alive")


class KnownHead:
    """A head of known lines: its fields, and as `passed` the lines of them that the client gets.

    To be read only: all answers with this head share it.
    """

    __slots__ = ("fields", "length", "passed", "reason", "shares", "status")

    def __init__(self, status: int, reason: bytes) -> None:
        self.status = status
        self.reason = reason
        self.fields: list[tuple[bytes, bytes]] = []
        self.passed = b""
        self.length = -1
        self.shares = False


class KnownLines:
    """What one process has learned, in bounded memory."""

    def __init__(self) -> None:
        self._lines: dict[bytes, KnownLine] = {}
        self._statuses: dict[bytes, tuple[int, bytes]] = {}
        self._heads: dict[bytes, KnownHead] = {}

    def read(self, head: bytes) -> KnownHead | None:
        """A head, without its empty line; None where a line is not known, or where lines have to be judged together."""
        found = self._heads.get(head)
        if found is None:
            found = self._put_together(head)
            if found is not None and len(head) <= HEAD_BYTES_MAX:
                if len(self._heads) >= HEADS_MAX:
                    self._heads.clear()  # most were of a second that has passed
                self._heads[head] = found
        return found

    def _put_together(self, head: bytes) -> KnownHead | None:
        lines = head.split(b"\r\n")
        status = self._statuses.get(lines[0])
        if status is None or len(lines) > FIELDS_MAX + 1:
            return None
        found = KnownHead(status[0], status[1])
        passed: list[bytes] = []
        for number in range(1, len(lines)):
            line = self._lines.get(lines[number])
            if line is None or line.is_judged:
                return None
            if line.length >= 0:
                if found.length >= 0:
                    return None
                found.length = line.length
            if line.shares:
                found.shares = True
            found.fields.append(line.field)
            if line.passed:
                passed.append(line.passed)
        found.passed = b"".join(passed)
        return found if found.length >= 0 else None

    def learn(self, head: bytes, status: int, reason: bytes, fields: Sequence[tuple[bytes, bytes]]) -> None:
        """llhttp read `head`, an HTTP/1.1 answer's, as these. Learned is only what it took line by line."""
        lines = head.split(b"\r\n")
        if len(lines) != len(fields) + 1 or status in (204, 304) or status < 200:
            return
        if len(self._lines) + len(self._statuses) + len(lines) > LINES_MAX:
            self._lines.clear()
            self._statuses.clear()
            self._heads.clear()
        for line, (name, value) in zip(lines[1:], fields, strict=True):
            is_new = len(line) <= LINE_BYTES_MAX and line not in self._lines
            if is_new and name.lower() != _SECRET and _says(line, name, value):
                self._lines[line] = KnownLine(name, value)
        if len(lines[0]) <= LINE_BYTES_MAX and lines[0] == b"HTTP/1.1 %d %b" % (status, reason):
            self._statuses[lines[0]] = (status, reason)


def _says(line: bytes, name: bytes, value: bytes) -> bool:
    """Whether `line` is `name` and `value`, and nothing else."""
    return line[: len(name)] == name and line[len(name) :][:1] == b":" and line[len(name) + 1 :].strip(b" \t") == value
