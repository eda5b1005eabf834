"""Sanic's request, made from what the door read; and what is known about it on the way through."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
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

    request_id = client_ip = ""
    scheme = "http"
    forwarded_for: Sequence[str] = ()
    forwarded_host: bytes | None = None
    credential: Credential | None = None
    verdict: Verdict | None = None
    service: str | None = None
    backend_seconds: float | None = None

    def __init__(self) -> None:
        self.started_at = time.time()
        self.began = time.monotonic()


class GatewayRequest(Request[Any, Any]):
    """A Sanic request over a Message. What Sanic would parse in advance (URL, header mapping) is made when asked for.

    Every slot that Sanic's own constructor fills is filled, or starts with a value that all requests share;
    tests/app/test_sanic_internals.py notices when those slots change.
    """

    path = ""  # set by the constructor
    head = body = b""
    route: Any = None
    responded = _request_middleware_started = _response_middleware_started = False
    _id = _name = _protocol = None
    _stream_id = 0
    parsed_accept = parsed_cookies = parsed_credentials = parsed_files = None
    parsed_form = parsed_forwarded = parsed_json = parsed_token = None

    def __init__(self, *, message: Message, exchange: Exchange, app: Sanic[Any, Any]) -> None:
        self.message = message
        self.exchange = exchange
        self.context = context = Context()
        self.peer_ip = exchange.connection.peer_ip
        self.raw_url = message.target
        self.path = message.target.partition(b"?")[0].decode("latin-1")
        self.method = message.method.decode("ascii", "replace")
        self.version = message.version
        self.app = app
        self.stream = exchange
        self.transport: Any = exchange.connection.transport
        self.conn_info = exchange.connection.conn_info
        self._ctx: Any = context
        self._match_info = {}

    @cached_property
    def parsed_args(self) -> Any:  # type: ignore[override]
        return defaultdict(RequestParameters)

    @cached_property
    def parsed_not_grouped_args(self) -> Any:  # type: ignore[override]
        return defaultdict(list)

    @property
    def ctx(self) -> Any:
        """The Context, under the name that Sanic's users know."""
        return self.context

    @cached_property
    def headers(self) -> Header:  # type: ignore[override]
        """The fields as Sanic's mapping: lower-case names, several values possible."""
        fields = self.message.fields
        return Header([(n.decode().lower(), v.decode(errors="surrogateescape")) for n, v in fields])

    @cached_property
    def _parsed_url(self) -> Any:  # type: ignore[override]
        return parse_url(self.raw_url if self.raw_url[:1] == b"/" else b"/")

    async def respond(self, response: Any = None, **options: Any) -> Any:
        """As Sanic's, without looking again for what is known: the response, and middleware that returns nothing."""
        if response is None or self._response_middleware_started or self.route is None:
            return await super().respond(response, **options)
        response = self.begin_response(response)
        for step in self.route.extra.response_middleware:
            changed = step.func(self, response)
            if hasattr(changed, "__await__"):
                changed = await changed
            response = changed or response
        return response

    def begin_response(self, response: Any) -> Any:
        """What comes before the response middleware."""
        self._response_middleware_started = self.responded = True
        return self.exchange.respond(response)

    def finish(self) -> None:
        """Called once, when the last byte of the answer is sent or nobody is there to take it: writes the log line."""
        exchange, context = self.exchange, self.context
        credential = context.credential
        services = self.app.ctx
        line = services.access_line(
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
        services.write(line)
