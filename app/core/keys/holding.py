"""What one worker's memory says about one key. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.core.model import Credential

HeldAs = Literal["static", "cached", "in doubt", "unknown", "absent"]


@dataclass(frozen=True, slots=True)
class Holding:
    """`held_as` "static": it stands in VALID_API_KEYS; "cached": known and relied on; "in doubt": known, and read again
    before its next use; "unknown": remembered as nobody's; "absent": its next use asks the database."""

    held_as: HeldAs
    credential: Credential | None = None
