"""A request of the admin app, and what its steps find out about it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from sanic import Request
from sanic.exceptions import BadURL

from app.core.process.admin_token import AdminToken
from app.core.process.request_id import new_request_id


class Context(SimpleNamespace):
    """`started` is by the monotonic clock. `inputs` holds, by its type, what the handler's signature asks for."""

    request_id: str
    started: float
    client_ip: str
    caller: AdminToken | None
    inputs: dict[type, Any]

    def __init__(self) -> None:
        super().__init__(
            request_id=new_request_id(),
            started=time.monotonic(),
            client_ip="",
            caller=None,
            inputs={},
        )


class AdminRequest(Request[Any, Context]):
    """`ctx` is a Context."""

    def __init__(self, url_bytes: bytes, *arguments: Any, **options: Any) -> None:
        """Raises BadURL. What Sanic makes to answer a request with of which it could not make one, whose method is
        NONE, must not fail for the same target again: the client would get no answer at all."""
        try:
            super().__init__(url_bytes, *arguments, **options)
        except BadURL:
            if options.get("method") != "NONE":
                raise
            super().__init__(b"*", *arguments, **options)

    @property
    def path(self) -> str:
        """Sanic's fails for an absolute target without a path, `http://host` (RFC 9112 section 3.2.2: that is `/`)."""
        return (self._parsed_url.path or b"/").decode()

    @staticmethod
    def make_context() -> Context:
        return Context()


class UnitId(str):
    """The `{id}` of a path: a UUID as the database writes it."""

    __slots__ = ()
