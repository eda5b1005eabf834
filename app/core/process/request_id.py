"""Request ids: random UUIDs (version 4) as text. One uuid4() is 6 % of a request, so they are made in blocks. Pure."""

from __future__ import annotations

import os
from typing import Final

BLOCK: Final = 64
"""Ids made at a time: one system call for all, and a pause of some 30 us for the request that finds none left."""
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

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
    digits = os.urandom(16 * BLOCK).hex()
    return [_uuid(digits[at : at + 32]) for at in range(0, len(digits), 32)]


def _uuid(h: str) -> str:
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{_VARIANT[h[16]]}{h[17:20]}-{h[20:]}"


os.register_at_fork(after_in_child=_ready.clear)  # or two workers would give the same ids
