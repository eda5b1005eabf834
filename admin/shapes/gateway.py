"""The live gateway workers on the wire, and what is said to them all."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, model_validator

from admin.shapes.fields import ABSENT, Answer, Body, HeardBy, TimeText, Uuid

WORKER: Final[dict[str, Any]] = {
    "node": "gateway-1:4711",
    "version": "0.1.0",
    "since": "2026-01-05T09:00:00Z",
    "keys_cached": 1234,
    "last_change_at": "2026-01-05T09:31:00Z",
}


class WorkerAnswer(Answer):
    """One gateway worker as it said itself, a second ago at most."""

    model_config = ConfigDict(json_schema_extra={"example": WORKER})
    node: Annotated[str, Field(description="Host and process id.")]
    version: str
    since: Annotated[TimeText, Field(description="When the worker started.")]
    keys_cached: int
    last_change_at: Annotated[TimeText | None, Field(description="The latest change it applied; null: none yet.")]


class WorkerList(Answer):
    """All of them, by node; never more than one page."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [WORKER], "next_cursor": None}})
    items: list[WorkerAnswer]
    next_cursor: None


class Invalidation(Body):
    """What the gateways are to read again before its next use: exactly one of the three."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"key_id": "5b1e6c1e-7d0a-4c57-9a39-2f4c0a3b9f10"},
            "oneOf": [{"required": ["key_id"]}, {"required": ["organization_id"]}, {"required": ["all"]}],
        }
    )
    key_id: Uuid = ABSENT
    organization_id: Uuid = ABSENT
    all: Literal[True] = ABSENT

    @model_validator(mode="after")
    def _names_one_thing(self) -> Invalidation:
        if len(self.model_fields_set) != 1:
            raise ValueError("expected exactly one of key_id, organization_id and all")
        return self


class InvalidationAnswer(Answer):
    """Who was told."""

    model_config = ConfigDict(json_schema_extra={"example": {"heard_by": 4}})
    heard_by: HeardBy
