"""One row of the table of endpoints, and what its handler's signature says about it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ValidationError
from sanic import HTTPResponse

from admin.desk import Repeat
from admin.precondition import Precondition
from admin.shapes.fields import Answer, Body, Query
from app.core.envelope import JSON
from app.core.process.admin_token import Role

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True)
class Endpoint:
    """`role` None: open to everybody. `answer` None: no JSON (a page). `conflict` says when there is a 409.

    What a handler's parameters are called does not matter, their types do: a Body, a Query, a UnitId, a Precondition
    (it honours If-Match), a Repeat (it honours Idempotency-Key).
    """

    method: Method
    path: str
    role: Role | None
    handler: Callable[..., Coroutine[Any, Any, HTTPResponse]]
    answer: type[Answer] | None
    status: int = 200
    tagged: bool = False
    """Whether the answer has an ETag."""
    conflict: str = ""
    needs_redis: bool = False
    """Whether there is a 503 while Redis is away."""
    media: str = JSON
    answers_unchanged: bool = False
    """Whether If-None-Match gets a 304."""

    @cached_property
    def wanted(self) -> dict[str, type]:
        """The handler's parameters beside the request, by name."""
        hints = get_type_hints(self.handler)
        return {name: kind for name, kind in hints.items() if name not in ("request", "return")}

    def _one(self, family: type) -> type | None:
        return next((kind for kind in self.wanted.values() if issubclass(kind, family)), None)

    @cached_property
    def body(self) -> type[BaseModel] | None:
        return self._one(Body)

    @cached_property
    def query(self) -> type[BaseModel] | None:
        return self._one(Query)

    @property
    def has_id(self) -> bool:
        return "{id}" in self.path

    @property
    def names_a_thing(self) -> bool:
        """Whether an id is given, in the path or the body, of something that may not be there."""
        return self.has_id or (
            self.body is not None and not {"organization_id", "key_id"}.isdisjoint(self.body.model_fields)
        )

    @property
    def takes_precondition(self) -> bool:
        return self._one(Precondition) is not None

    @property
    def is_repeatable(self) -> bool:
        return self._one(Repeat) is not None

    @cached_property
    def body_is_optional(self) -> bool:
        """Whether no body at all means the same as `{}`."""
        if self.body is None:
            return True
        try:
            self.body.model_validate({})
        except ValidationError:
            return False
        return True

    @property
    def name(self) -> str:
        """The operation's id, such as `keys.create`."""
        return f"{self.handler.__module__.rpartition('.')[2]}.{self.handler.__name__}"

    @property
    def description(self) -> str:
        return inspect.getdoc(self.handler) or ""
