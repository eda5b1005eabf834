"""What people may ask for when they manage organizations and keys, and the sentence for what they may not. Pure.

The database's constraints say the same once more, so that nothing else can write what these would refuse.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Final, TypedDict
from uuid import UUID

from app.core.model import Limits

NAME_CHARACTERS_MAX: Final = 200
REASON_CHARACTERS_MAX: Final = 500
SCOPES_MAX: Final = 32
LIMIT_MAX: Final = 2**31 - 1
"""The largest 32-bit integer: what every client can parse, and as good as unlimited."""
OVERLAP_SECONDS_MAX: Final = 365 * 86_400
_GARBLING: Final = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
"""Controls, line separators and text that changes the direction of what follows would garble a terminal or a log."""
READABLE: Final = rf"^[^{_GARBLING}]*[^\s{_GARBLING}][^{_GARBLING}]*$"
"""Names and reasons: something to see, and nothing that garbles. Means the same in ECMA 262, for the API's document."""
_READABLE: Final = re.compile(READABLE[1:-1])
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
"""A command's argument that was no UTF-8; JSON with one is refused earlier, and few regular expressions know them."""
_SCOPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._/*-]{0,63}")


class Refused(Exception):
    """The verb was not done and nothing was written. The text is one public sentence."""


class NotFound(Refused):
    """No organization or key has this id."""


class Conflict(Refused):
    """The thing's present state does not allow it: already revoked, expired, inactive."""


class Outdated(Refused):
    """The thing is no longer what the caller had read when it decided to change it."""


class Invalid(Refused):
    """No state would allow it: the value itself is impossible. `field` names the value."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class OrganizationChanges(TypedDict, total=False):
    """What to change about an organization; what is absent stays."""

    name: str
    tier: str
    active: bool


class KeyChanges(TypedDict, total=False):
    """What to change about a key; what is absent stays. `expires_at` has its zone, or is None: the key never ends."""

    name: str
    scopes: Sequence[str]
    expires_at: datetime | None


def organization_changes(changes: OrganizationChanges) -> dict[str, Any]:
    """By column. The tier is the database's to judge."""
    return {**changes, "name": text(changes["name"], "name")} if "name" in changes else dict(changes)


def key_changes(changes: KeyChanges) -> dict[str, Any]:
    """By column. Whether an expiry lies ahead is by the database's clock."""
    values: dict[str, Any] = dict(changes)
    if "name" in changes:
        values["name"] = text(changes["name"], "name")
    if "scopes" in changes:
        values["scopes"] = scopes(changes["scopes"])
    return values


def unit_id(text: str, what: str) -> str:
    """The id as the database writes it. `what` names the thing in the sentence."""
    try:
        return str(UUID(text))
    except ValueError:
        raise Invalid(f"the {what} id is no UUID", f"{what}_id") from None


def text(value: str, what: str, characters_max: int = NAME_CHARACTERS_MAX) -> str:
    """`value` without spaces around it: not empty, not too long, nothing that would garble a terminal or a log."""
    trimmed = value.strip()
    if not trimmed:
        raise Invalid(f"the {what} is empty", what)
    if len(trimmed) > characters_max:
        raise Invalid(f"the {what} is longer than {characters_max} characters", what)
    if not _READABLE.fullmatch(trimmed) or _SURROGATE.search(trimmed):
        raise Invalid(f"the {what} has characters that would garble a terminal or a log", what)
    return trimmed


def limits(value: Limits) -> Limits:
    """Each number in its range. A burst of 0 is fine: nothing rolls over."""
    for field in fields(Limits):
        number, least = getattr(value, field.name), 0 if field.name == "burst" else 1
        if not least <= number <= LIMIT_MAX:
            raise Invalid(f"{field.name} is {number}, expected {least} to {LIMIT_MAX}", field.name)
    return value


def scopes(values: Sequence[str]) -> list[str]:
    """In the order given, each once."""
    unique = list(dict.fromkeys(values))
    if len(unique) > SCOPES_MAX:
        raise Invalid(f"there are more than {SCOPES_MAX} scopes", "scopes")
    if not all(_SCOPE.fullmatch(scope) for scope in unique):
        raise Invalid("a scope is malformed, expected 1 to 64 letters, digits and :._/*-", "scopes")
    return unique


def overlap_seconds(value: float) -> float:
    """How long a rotated key may go on."""
    if not 0 <= value <= OVERLAP_SECONDS_MAX:  # not so for NaN either
        raise Invalid("the overlap is out of range, expected 0 to 365 days", "overlap_seconds")
    return value
