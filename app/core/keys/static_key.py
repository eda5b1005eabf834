"""Keys that stand in the configuration: VALID_API_KEYS. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from app.core.model import PLANS

EXPECTED: Final = "expected key:organization_id:tier[,...]"


@dataclass(frozen=True, slots=True)
class StaticKey:
    """One key of VALID_API_KEYS; `tier` is one of PLANS. The key is a secret, so the repr leaves it out."""

    key: str = field(repr=False)
    organization_id: str
    tier: str


def parse(text: str) -> tuple[StaticKey, ...]:
    """From `key:organization_id:tier[,...]`. Raises ValueError naming the entry by number and never by its text:
    it is a secret, and so may be what stands in the wrong place."""
    found: dict[str, StaticKey] = {}
    for number, entry in enumerate(text.split(","), 1):
        static = _entry(number, entry.strip())
        if static.key in found:
            raise ValueError(f"entry {number} repeats a key, {EXPECTED}")
        found[static.key] = static
    return tuple(found.values())


def _entry(number: int, text: str) -> StaticKey:
    parts = text.split(":")
    if len(parts) != 3:
        raise ValueError(f"entry {number} has not three parts, {EXPECTED}")
    key, organization_id, tier = parts
    if not re.fullmatch(r"[\x21-\x7e]{8,256}", key):
        raise ValueError(f"the key of entry {number} is not 8 to 256 visible ASCII characters, {EXPECTED}")
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", organization_id):
        raise ValueError(f"the organization of entry {number} is not 1 to 64 of A-Z a-z 0-9 _ . -, {EXPECTED}")
    if tier not in PLANS:
        raise ValueError(f"the tier of entry {number} is unknown, expected {', '.join(PLANS)}")
    return StaticKey(key, organization_id, tier)
