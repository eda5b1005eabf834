"""Sanic's request, made from what the door read, for everything that Sanic itself is to answer."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from httptools import parse_url
from sanic import Request, Sanic
from sanic.compat import Header
from sanic.request.parameters import RequestParameters

from app.context import Context
from app.message import Message

if TYPE_CHECKING:
    from app.exchange import Exchange


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

    def __init__(
        self, *, message: Message, exchange: Exchange, app: Sanic[Any, Any], context: Context | None = None
    ) -> None:
        """`context`: what is known of the request already, where its steps have begun."""
        self.message = message
        self.exchange = exchange
        self.context = context or Context(message, exchange.connection.peer_ip, getattr(app, "ctx", None))
        self.raw_url = message.target
        self.path = message.target.partition(b"?")[0].decode("latin-1")
        self.method = message.method.decode("ascii", "replace")
        self.version = message.version
        self.app = app
        self.stream = exchange
        self.transport: Any = exchange.connection.transport
        self.conn_info = exchange.connection.conn_info
        self._ctx: Any = self.context
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
        response = self.exchange.respond(response)
        self._response_middleware_started = self.responded = True
        for step in self.route.extra.response_middleware:
            changed = step.func(self, response)
            if hasattr(changed, "__await__"):
                changed = await changed
            response = changed or response
        return response
