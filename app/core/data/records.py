"""Organizations and keys as people manage them: what lists, answers and the audit log show. Pure.

No record has room for a key or its digest, so nothing that prints one can leak it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from app.core.envelope import rfc3339
from app.core.model import Limits, Organization

KeyStatus = Literal["active", "expired", "revoked"]


class Actor(NamedTuple):
    """Who does it, and from which IP address where there is one."""

    name: str
    address: str | None = None


@dataclass(frozen=True, slots=True)
class OrganizationRecord:
    """`limits` are those in force; `has_own_limits` tells whether they are the organization's own or its plan's."""

    id: str
    name: str
    tier: str
    active: bool
    created_at: datetime
    updated_at: datetime
    version: int
    limits: Limits
    has_own_limits: bool

    def as_organization(self) -> Organization:
        """What the gateways judge by."""
        return Organization(self.id, self.tier, self.limits, self.active)

    def as_json(self) -> dict[str, Any]:
        """The wire shape. Times are RFC 3339 UTC."""
        return {
            "id": self.id,
            "name": self.name,
            "tier": self.tier,
            "active": self.active,
            "created_at": _time(self.created_at),
            "updated_at": _time(self.updated_at),
            "limits": asdict(self.limits),
            "own_limits": self.has_own_limits,
        }


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key, as it was when it was read: `status` is by the database's clock."""

    id: str
    organization_id: str
    name: str
    env: str
    prefix: str
    status: KeyStatus
    created_at: datetime
    created_by: str | None
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_reason: str | None
    replaced_by: str | None
    version: int
    scopes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The wire shape. Times are RFC 3339 UTC, or null."""
        return {
            "id": self.id,
            "organization_id": self.organization_id,
            "name": self.name,
            "env": self.env,
            "prefix": self.prefix,
            "status": self.status,
            "scopes": list(self.scopes),
            "created_at": _time(self.created_at),
            "created_by": self.created_by,
            "last_used_at": _time(self.last_used_at),
            "expires_at": _time(self.expires_at),
            "revoked_at": _time(self.revoked_at),
            "revoked_reason": self.revoked_reason,
            "replaced_by": self.replaced_by,
        }


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit log. `before` and `after` are the thing's wire shapes at the time, None for no thing."""

    id: int
    at: datetime
    who: str
    address: str | None
    action: str
    subject_kind: str
    subject_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        """The wire shape. Times are RFC 3339 UTC."""
        return {**asdict(self), "at": _time(self.at)}


def _time(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at.timestamp())
