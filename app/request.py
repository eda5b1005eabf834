"""Sanic's request, made from what the door read; and what is known about it on the way through."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from httptools import parse_url
from sanic import Request, Sanic
from sanic.compat import Header
from sanic.request.parameters import RequestParameters

from app.core.model import Credential, Verdict
from app.message import Message

if TYPE_CHECKING:
    from app.exchange import Exchange

HANG_UP_STATUS: Final = 499
"""Logged for a request whose client left before an answer (the number that nginx made customary)."""


class Context:
    """What the steps of a request learn and the later ones need (`request.ctx`)."""

    __slots__ = (
        "backend_seconds",
        "began",
        "client_ip",
        "credential",
        "forwarded_for",
        "forwarded_host",
        "request_id",
        "scheme",
        "service",
        "started_at",
        "verdict",
    )

    def __init__(self) -> None:
        self.started_at = time.time()
        self.began = time.monotonic()
        self.request_id = ""
        self.client_ip = ""
        self.scheme = "http"
        self.forwarded_for: list[str] = []
        self.forwarded_host: bytes | None = None
        self.credential: Credential | None = None
        self.verdict: Verdict | None = None
        self.service: str | None = None
        self.backend_seconds: float | None = None


class GatewayRequest(Request[Any, Any]):
    """A Sanic request over a Message. What Sanic would parse in advance (URL, header mapping) is made when asked for.

    Sets every slot that Sanic's own constructor sets; tests/app/test_sanic_internals.py notices when those change.
    """

    __slots__ = ("_header_map", "_url_parts", "context", "exchange", "message", "peer_ip")

    def __init__(self, *, message: Message, exchange: Exchange, app: Sanic[Any, Any]) -> None:
        self.message = message
        self.exchange = exchange
        self.context = context = Context()
        self.peer_ip = exchange.connection.peer_ip
        self._header_map: Header | None = None
        self._url_parts: Any = None
        self.raw_url = message.target
        self.method = message.method.decode("ascii", "replace")
        self.version = message.version
        self.app = app
        self.stream = exchange
        self.transport: Any = exchange.connection.transport
        self.conn_info = exchange.connection.conn_info
        self.head = b""
        self.body = b""
        self.route = None
        self.responded = False
        self._ctx: Any = context
        self._id = self._name = self._protocol = None
        self._stream_id = 0
        self._match_info = {}
        self._request_middleware_started = self._response_middleware_started = False
        self.parsed_accept = self.parsed_cookies = self.parsed_credentials = self.parsed_files = None
        self.parsed_form = self.parsed_forwarded = self.parsed_json = self.parsed_token = None
        self.parsed_args = defaultdict(RequestParameters)
        self.parsed_not_grouped_args = defaultdict(list)

    @property
    def ctx(self) -> Any:
        """The Context, under the name that Sanic's users know."""
        return self.context

    @property
    def path(self) -> str:
        return self.raw_url.partition(b"?")[0].decode("latin-1")

    @property
    def headers(self) -> Header:  # type: ignore[override]
        """The fields as Sanic's mapping: lower-case names, several values possible."""
        if self._header_map is None:
            fields = self.message.fields
            self._header_map = Header([(n.decode().lower(), v.decode(errors="surrogateescape")) for n, v in fields])
        return self._header_map

    @property
    def _parsed_url(self) -> Any:  # type: ignore[override]
        if self._url_parts is None:
            self._url_parts = parse_url(self.raw_url if self.raw_url[:1] == b"/" else b"/")
        return self._url_parts

    def finish(self) -> None:
        """Called once, when the last byte of the answer is sent or nobody is there to take it: writes the log line."""
        exchange, context = self.exchange, self.context
        credential = context.credential
        self.app.ctx.log_access(
            started_at=context.started_at,
            method=self.method,
            path=self.path,
            status=exchange.status or HANG_UP_STATUS,
            duration_seconds=time.monotonic() - context.began,
            body_bytes=exchange.body_bytes,
            client_ip=context.client_ip,
            request_id=context.request_id,
            organization_id=credential.organization.id if credential else None,
            tier=credential.organization.tier if credential else None,
            service=context.service,
            key_id=credential.key_id if credential else None,
            backend_seconds=context.backend_seconds,
        )
