"""Request ids: random UUIDs (version 4) as text. One uuid4() is 6 % of a request, so they are made in blocks. Pure."""

from __future__ import annotations

import os
from typing import Final

BLOCK: Final = 64
"""Ids made at a time: one system call for all, and a pause of some 30 us for the request that finds none left."""
_RANDOM: Final = int("ffffffffffff0fff3fffffffffffffff" * BLOCK, 16)
_FIXED: Final = int("00000000000040008000000000000000" * BLOCK, 16)
"""Of a block's bits those that are random, and those that say version 4 and the variant (RFC 9562 section 5.4)."""
_PAIRS_CHARACTERS: Final = 40
"""Of 16 bytes as hex in eights of two bytes, each with a hyphen after it: much of an id's text in one piece."""

_ready: list[str] = []


def new_request_id() -> str:
    """36 characters, as in RFC 9562 section 5.4. Threads may share it: list.pop is one step."""
    try:
        return _ready.pop()
    except IndexError:
        ids = _block()
        first = ids.pop()
        _ready.extend(ids)
        return first


def _block() -> list[str]:
    bits = int.from_bytes(os.urandom(16 * BLOCK), "big") & _RANDOM | _FIXED
    pairs = bits.to_bytes(16 * BLOCK, "big").hex("-", 2)
    return [_uuid(pairs, at) for at in range(0, len(pairs), _PAIRS_CHARACTERS)]


def _uuid(pairs: str, at: int) -> str:
    """From `aaaa-aaaa-bbbb-cccc-dddd-eeee-eeee-eeee`."""
    return f"{pairs[at : at + 4]}{pairs[at + 5 : at + 29]}{pairs[at + 30 : at + 34]}{pairs[at + 35 : at + 39]}"


os.register_at_fork(after_in_child=_ready.clear)  # or two workers would give the same ids
