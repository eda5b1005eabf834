"""API keys on the wire. No shape but the one answer that creates a key has room for it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, model_validator

from admin.shapes.fields import (
    ABSENT,
    PAGE,
    Answer,
    Body,
    Days,
    HeardBy,
    ListQuery,
    Name,
    Reason,
    Scopes,
    Time,
    TimeText,
    Uuid,
    UuidText,
)
from app.core.data.rules import OVERLAP_SECONDS_MAX

DAY_SECONDS: Final = 86_400
KEY: Final[dict[str, Any]] = {
    "id": "5b1e6c1e-7d0a-4c57-9a39-2f4c0a3b9f10",
    "organization_id": "00000000-0000-0000-0000-000000000002",
    "name": "billing service",
    "env": "live",
    "prefix": "sk_live_3f9a",
    "status": "active",
    "scopes": ["invoices:read"],
    "created_at": "2026-01-05T09:31:00Z",
    "created_by": "ops",
    "last_used_at": None,
    "expires_at": None,
    "revoked_at": None,
    "revoked_reason": None,
    "replaced_by": None,
}
ISSUED: Final[dict[str, Any]] = {**KEY, "api_key": "sk_live_3f9a…, shown this once", "heard_by": 4}
FORMER: Final[dict[str, Any]] = {
    **KEY,
    "id": "0d6f0c7e-3c1b-4b8e-8a53-6c9b7d2f4e21",
    "last_used_at": "2026-01-05T09:40:12Z",
    "expires_at": "2026-01-06T09:45:00Z",
    "replaced_by": KEY["id"],
}


class NewKey(Body):
    """A key to create, for an active organization."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "organization_id": "00000000-0000-0000-0000-000000000002",
                "name": "billing service",
                "env": "live",
                "expires_at": "2030-01-31T00:00:00Z",
                "scopes": ["invoices:read"],
            }
        }
    )
    organization_id: Uuid
    name: Name
    env: Literal["test", "live"] = "test"
    expires_at: Time | None = None
    scopes: Scopes = Field(default_factory=list)


class KeyPatch(Body):
    """What to change; what is absent stays. `expires_at` null: the key never ends."""

    model_config = ConfigDict(json_schema_extra={"example": {"name": "billing, old"}, "minProperties": 1})
    name: Name = ABSENT
    expires_at: Time | None = None
    scopes: Scopes = Field(default_factory=list)

    @model_validator(mode="after")
    def _changes_something(self) -> KeyPatch:
        if not self.model_fields_set:
            raise ValueError("there is nothing to change, expected name, expires_at or scopes")
        return self

    def changes(self) -> dict[str, Any]:
        """Only what was said."""
        return self.model_dump(include=self.model_fields_set)


class Revocation(Body):
    """Why a key ends."""

    model_config = ConfigDict(json_schema_extra={"example": {"reason": "found in a public repository"}})
    reason: Reason


class Rotation(Body):
    """How long the old key goes on beside its successor: a day, unless said otherwise; 0 ends it at once."""

    model_config = ConfigDict(json_schema_extra={"example": {"overlap_seconds": 3600}})
    overlap_seconds: Annotated[int, Field(ge=0, le=OVERLAP_SECONDS_MAX)] = DAY_SECONDS


class KeyQuery(ListQuery):
    """Filters of the list of keys; they add up. An expiring key is active and ends within `expiring_within_days`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                **PAGE,
                "organization_id": KEY["organization_id"],
                "status": "expiring",
                "expiring_within_days": 30,
                "prefix": KEY["prefix"],
                "unused_since": "2026-01-05T00:00:00Z",
            }
        }
    )

    organization_id: Uuid | None = None
    status: Literal["active", "expiring", "expired", "revoked"] | None = None
    expiring_within_days: Days = 7
    prefix: (
        Annotated[
            str,
            Field(pattern="^sk_[a-z0-9_]{0,9}$", description="The key's beginning: up to 12 characters, never a key."),
        ]
        | None
    ) = None
    unused_since: Annotated[Time, Field(description="Neither used nor created since.")] | None = None


class KeyAnswer(Answer):
    """One key, without the key."""

    model_config = ConfigDict(json_schema_extra={"example": KEY})
    id: UuidText
    organization_id: UuidText
    name: str
    env: Literal["test", "live"]
    prefix: str
    status: Literal["active", "expired", "revoked"]
    scopes: list[str]
    created_at: TimeText
    created_by: str | None
    last_used_at: TimeText | None
    expires_at: TimeText | None
    revoked_at: TimeText | None
    revoked_reason: str | None
    replaced_by: UuidText | None


class ChangedKey(KeyAnswer):
    """One key after a change."""

    model_config = ConfigDict(json_schema_extra={"example": {**KEY, "heard_by": 4}})
    heard_by: HeardBy


class IssuedKey(ChangedKey):
    """A new key, with the key: this once."""

    model_config = ConfigDict(json_schema_extra={"example": ISSUED})
    api_key: Annotated[
        str | None, Field(description="The key. null in a replay: it is stored nowhere, so nobody can say it again.")
    ]


class RotatedKey(IssuedKey):
    """The successor, and the key that it takes over from: when that one ends and when it was last used."""

    model_config = ConfigDict(json_schema_extra={"example": {**ISSUED, "replaces": FORMER}})
    replaces: KeyAnswer


class KeyPage(Answer):
    """Keys, the oldest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [KEY], "next_cursor": None}})
    items: list[KeyAnswer]
    next_cursor: str | None
