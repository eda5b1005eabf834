"""What gateway workers and the admin app say to each other through Redis: JSON, checked on arrival. Pure.

Fields that a reader does not know are passed over, so that workers of two versions can be up at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from app.core.keys.holding import Holding

BYTES_MAX = 4_096
Shape = TypeVar("Shape")


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker about itself. `since` (its start) and `last_change_at` (the latest it applied) are unix seconds."""

    node: str
    version: str
    since: float
    keys_cached: int
    last_change_at: float | None


@dataclass(frozen=True, slots=True)
class Question:
    """What do you hold of the key with this digest (64 hex characters)? `nonce` names the list for the answers."""

    nonce: str
    digest: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One worker's."""

    node: str
    holding: Holding


class Message(Generic[Shape]):
    """How one of the shapes above travels."""

    def __init__(self, shape: type[Shape]) -> None:
        self._adapter: TypeAdapter[Shape] = TypeAdapter(shape)

    def encode(self, value: Shape) -> bytes:
        return self._adapter.dump_json(value)

    def decode(self, message: Any) -> Shape:
        """Raises ValueError for anything but what `encode` makes, fields that are not known yet apart."""
        if not isinstance(message, bytes) or len(message) > BYTES_MAX:
            raise ValueError("not a message of ours")
        return self._adapter.validate_json(message, strict=True)


WORKER = Message(Worker)
QUESTION = Message(Question)
ANSWER = Message(Answer)
