"""Digests that are nobody's key, so that a client with a wrong one costs the database little. Pure."""

from __future__ import annotations

from collections import OrderedDict


class UnknownKeys:
    """At most `keys_max`, the oldest leaving first; each for `seconds`. Times are the caller's clock's."""

    def __init__(self, keys_max: int, seconds: float) -> None:
        self._keys_max = keys_max
        self._seconds = seconds
        self._until: OrderedDict[bytes, float] = OrderedDict()  # popping a plain dict's oldest walks over earlier pops

    def __len__(self) -> int:
        return len(self._until)

    def add(self, digest: bytes, now: float) -> None:
        self._until[digest] = now + self._seconds
        self._until.move_to_end(digest)
        if len(self._until) > self._keys_max:
            self._until.popitem(last=False)

    def holds(self, digest: bytes, now: float) -> bool:
        until = self._until.get(digest)
        return until is not None and now < until

    def clear(self) -> None:
        self._until.clear()
