"""A change as gateways tell it to each other: one small JSON shape, checked strictly. Pure.

A message is a list of `{"kind": "key"|"organization"|"all", "id": UUID, or "" for "all"}`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

import orjson

from app.core.model import Change

CHANGES_MAX: Final = 500
BYTES_MAX: Final = 65_536
"""500 changes are 35 kB."""


def encode(changes: Sequence[Change]) -> bytes:
    """The message for 1 to CHANGES_MAX changes."""
    return orjson.dumps([{"kind": change.kind, "id": change.id} for change in changes])


def decode(message: bytes) -> list[Change]:
    """Raises ValueError for anything but what `encode` makes: a message that says nonsense must not flush anything."""
    if len(message) > BYTES_MAX:
        raise ValueError(f"{len(message)} bytes long")
    items = orjson.loads(message)
    if not isinstance(items, list) or not 0 < len(items) <= CHANGES_MAX:
        raise ValueError("not a list of changes")
    return [_change(item) for item in items]


def _change(item: object) -> Change:
    match item:
        case {"kind": "all", "id": "", **rest} if not rest:
            return Change("all")
        case {"kind": "key", "id": str(identity), **rest} if not rest:
            return Change("key", str(uuid.UUID(identity)))
        case {"kind": "organization", "id": str(identity), **rest} if not rest:
            return Change("organization", str(uuid.UUID(identity)))
    raise ValueError("not a change")
