"""A request of the admin app, and what its steps find out about it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from sanic import Request

from app.core.admin_token import AdminToken
from app.core.request_id import new_request_id


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

    @staticmethod
    def make_context() -> Context:
        return Context()


class UnitId(str):
    """The `{id}` of a path: a UUID as the database writes it."""

    __slots__ = ()
