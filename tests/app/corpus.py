"""What the corpus of hostile requests is written in."""

from __future__ import annotations

from collections.abc import Iterable

from tests.app.corpus_forwarded import request

SIZED = b"Content-Length: 5\r\n"
LAST = b"0\r\n\r\n"
Cases = dict[str, tuple[bytes, int]]
"""By name: what is sent, and the status that it is refused with."""


def get(target: bytes) -> bytes:
    return request(start=b"GET %b HTTP/1.1" % target)


def each(kind: str, values: Iterable[bytes], template: bytes, status: int = 400) -> Cases:
    """A case for each value, put in the place of `@` in the template."""
    return {f"{kind} {value[:40]!r}": (template.replace(b"@", value), status) for value in values}
