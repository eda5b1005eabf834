"""Answers whose header fields are lines already. Sanic's own keep a mapping, built for each and taken apart again."""

from __future__ import annotations

from typing import Literal

from sanic import HTTPResponse

Mode = Literal["length", "chunked", "close", "none"]


class ReadyResponse(HTTPResponse):
    """A whole answer of our own: `lines` are its fields, less the length; every refusal is one."""

    __slots__ = ("lines",)

    def __init__(self, status: int, lines: list[bytes], body: bytes | None) -> None:
        # Not Sanic's constructor: it would make the mapping.
        self.asgi = False
        self.content_type = self._cookies = None
        self.body = body
        self.status = status
        self.lines = lines


class RelayedResponse(ReadyResponse):
    """A backend's answer, whose body comes piece by piece; `framed_by` says how that ends.

    `is_shared_across_origins`: a browser's script of another origin may read it (Fetch standard, CORS protocol).
    """

    __slots__ = ("framed_by", "is_shared_across_origins", "reason")

    def __init__(self, status: int, reason: bytes, lines: list[bytes], framed_by: Mode, is_shared: bool) -> None:
        super().__init__(status, lines, None)
        self.is_shared_across_origins = is_shared
        self.reason = reason
        self.framed_by = framed_by
