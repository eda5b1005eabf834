"""Digests remembered for a while: of keys that are nobody's, and of keys that were somebody's. Pure."""

from __future__ import annotations

from collections import OrderedDict


class DigestMemory:
    """At most `digests_max`, the oldest leaving first; each for `seconds`. Times are the caller's clock's."""

    def __init__(self, digests_max: int, seconds: float) -> None:
        self._digests_max = digests_max
        self._seconds = seconds
        self._until: OrderedDict[bytes, float] = OrderedDict()  # popping a plain dict's oldest walks over earlier pops

    def __len__(self) -> int:
        return len(self._until)

    def add(self, digest: bytes, now: float) -> None:
        self._until[digest] = now + self._seconds
        self._until.move_to_end(digest)
        if len(self._until) > self._digests_max:
            self._until.popitem(last=False)

    def holds(self, digest: bytes, now: float) -> bool:
        until = self._until.get(digest)
        return until is not None and now < until

    def clear(self) -> None:
        self._until.clear()
