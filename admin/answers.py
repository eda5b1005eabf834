"""Answers as JSON, alone or as a page of a list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import orjson
from sanic import HTTPResponse

from admin import cursor
from admin.precondition import is_unchanged
from admin.request import AdminRequest
from admin.shapes.fields import ListQuery
from app.core.data.listing import Page
from app.core.envelope import JSON

Item = TypeVar("Item")


def json(
    body: Mapping[str, Any], status: int = 200, *, tag: str | None = None, fields: Mapping[str, str] | None = None
) -> HTTPResponse:
    """`tag` becomes the ETag, quotation marks included."""
    headers = dict(fields or {})
    if tag is not None:
        headers["ETag"] = tag
    return HTTPResponse(orjson.dumps(body), status=status, headers=headers, content_type=JSON)


def unless_known(request: AdminRequest, body: Mapping[str, Any], tag: str) -> HTTPResponse:
    """`body` under `tag`, or 304 for a reader that has it. Only where the tag stands for the whole body."""
    known = request.headers.get("if-none-match")
    if known is not None and is_unchanged(known, tag):
        return HTTPResponse(status=304, headers={"ETag": tag})
    return json(body, tag=tag)


def page(found: Page[Item], query: ListQuery, show: Callable[[Item], dict[str, Any]]) -> HTTPResponse:
    """`{"items": [...], "next_cursor": null | "..."}`."""
    following = cursor.encode(found.following, query) if found.following else None
    return json({"items": [show(item) for item in found.items], "next_cursor": following})
