"""Cursors: where a page ended, as opaque text that only goes with the filters it was made under."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from datetime import UTC, datetime
from typing import Final

import orjson

from admin.errors import Invalid, Problem
from admin.shapes.fields import ListQuery
from app.core.data.listing import Position

_ID: Final = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9]{1,18}", re.ASCII)


def _scope(query: ListQuery) -> str:
    """Which list under which filters, in short."""
    said = f"{type(query).__name__} {query.model_dump_json(exclude={'limit', 'cursor'})}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def encode(position: Position, query: ListQuery) -> str:
    """The text for `next_cursor`."""
    at = position.at.astimezone(UTC).isoformat(timespec="microseconds")
    return base64.urlsafe_b64encode(orjson.dumps([_scope(query), at, position.id])).decode().rstrip("=")


def position(query: ListQuery) -> Position | None:
    """Where the page that `query` asks for begins. Raises Invalid for a cursor that was not made for this query."""
    if query.cursor is None:
        return None
    try:
        scope, at, unit_id = orjson.loads(base64.b64decode(query.cursor + "=" * (-len(query.cursor) % 4), b"-_", True))
        if scope == _scope(query) and _ID.fullmatch(unit_id):
            return Position(datetime.fromisoformat(at).astimezone(UTC), unit_id)
    except (ValueError, TypeError, OverflowError, binascii.Error):
        pass
    raise Invalid([Problem(("query", "cursor"), "is none of this list under these filters, begin without one")])
