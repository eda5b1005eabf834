"""Answers whose header fields are lines already. Sanic's own keep a mapping, built for each and taken apart again."""

from __future__ import annotations

from sanic import HTTPResponse

from app.relayed import Relayed


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
    """A backend's answer, whose body comes piece by piece."""

    __slots__ = ("head",)

    def __init__(self, head: Relayed) -> None:
        super().__init__(head.status, head.lines, None)
        self.head = head
