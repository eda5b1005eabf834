"""Organizations, their limits, and keys: the one place that knows how they may be changed.

Every verb is one transaction with its line in the audit log. After the commit, never before, it tells the gateways: one
that heard of a change earlier would read the former state and keep it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from app.core.data import ledger, rules
from app.core.data.database import Connection
from app.core.data.records import Actor, KeyRecord, OrganizationRecord
from app.core.data.rules import Conflict, Invalid, KeyChanges, OrganizationChanges, Outdated
from app.core.keys.credential import Env
from app.core.model import Change, Limits

Record = TypeVar("Record", OrganizationRecord, KeyRecord)
Transact = Callable[[], AbstractAsyncContextManager[Connection]]
"""Opens a transaction that commits at the end of its block and rolls back on an exception."""
Publish = Callable[[Sequence[Change]], Awaitable[int | None]]
Guard = Callable[[Any], bool]
"""Whether the record is still what the caller had read; asked once it is locked."""


@dataclass(frozen=True, slots=True)
class Changed(Generic[Record]):
    """What a verb left behind. `heard_by`: how many gateway workers were told; None when Redis could not tell them."""

    record: Record
    heard_by: int | None


@dataclass(frozen=True, slots=True)
class Issued:
    """A new key. `key` is here and nowhere else, ever. `former` is the key that it takes over from, as it is now."""

    key: str = field(repr=False)
    record: KeyRecord
    organization: OrganizationRecord
    heard_by: int | None
    former: KeyRecord | None = None


class Issuer:
    """The verbs, on behalf of `actor` at `address` (the audit log's who and where from).

    All of them raise rules.Refused (NotFound, Conflict, Outdated, Invalid) with nothing written, or what `transact`
    raises when the database is away. A `guard` that says no makes them raise Outdated. `publish` tells the gateways and
    must not raise; a change that it could not tell is in force all the same, as soon as they look into the journal.
    """

    def __init__(self, transact: Transact, *, actor: str, publish: Publish, address: str | None = None) -> None:
        self._transact = transact
        self._actor = Actor(actor, address)
        self._publish = publish

    # --- organizations ---

    async def create_organization(self, name: str, tier: str, *, active: bool = True) -> Changed[OrganizationRecord]:
        """A new organization with its tier's limits."""
        trimmed = rules.text(name, "name")
        async with self._transact() as connection:
            await ledger.require_tier(connection, tier)
            record = await ledger.insert_organization(connection, trimmed, tier, active=active)
            await ledger.audit(connection, self._actor, "organization.create", None, record)
        return Changed(record, await self._publish([Change("organization", record.id)]))

    async def list_organizations(self) -> list[OrganizationRecord]:
        """The oldest first, ledger.LISTED_MAX of them at most."""
        async with self._transact() as connection:
            return await ledger.organizations(connection)

    async def set_limits(
        self, organization_id: str, limits: Limits | None, *, guard: Guard | None = None
    ) -> Changed[OrganizationRecord]:
        """Its own three numbers instead of its tier's; None for the tier's again."""
        if limits is None:
            statement, values = "DELETE FROM organization_limits WHERE organization_id = %(id)s", {}
        else:
            statement, values = ledger.SET_OWN_LIMITS, asdict(rules.limits(limits))
        return await self._change_organization(organization_id, "organization.set_limits", statement, values, guard)

    async def set_tier(self, organization_id: str, tier: str) -> Changed[OrganizationRecord]:
        """Another plan. Its own limits, if it has any, stay in force."""
        return await self.update_organization(organization_id, {"tier": tier})

    async def set_active(self, organization_id: str, *, active: bool) -> Changed[OrganizationRecord]:
        """False refuses all its keys, true lets them in again. Either may be asked for twice."""
        return await self.update_organization(organization_id, {"active": active})

    async def update_organization(
        self, organization_id: str, changes: OrganizationChanges, *, guard: Guard | None = None
    ) -> Changed[OrganizationRecord]:
        """Name, tier, activity: what `changes` names, together or not at all."""
        values = rules.organization_changes(changes)
        if "tier" in values:
            async with self._transact() as connection:
                await ledger.require_tier(connection, values["tier"])
        everything = {"name": None, "tier": None, "active": None, **values}
        action = _organization_action(values)
        return await self._change_organization(organization_id, action, ledger.UPDATE_ORGANIZATION, everything, guard)

    async def _change_organization(
        self, organization_id: str, action: str, statement: str, values: Mapping[str, Any], guard: Guard | None
    ) -> Changed[OrganizationRecord]:
        unit_id = rules.unit_id(organization_id, "organization")
        async with self._transact() as connection:
            before = await ledger.organization(connection, unit_id, lock=True)
            _require_current(before, guard)
            await connection.execute(statement, {"id": unit_id, **values})
            after = await ledger.organization(connection, unit_id)
            await ledger.audit(connection, self._actor, action, before, after)
        return Changed(after, await self._publish([Change("organization", unit_id)]))

    # --- keys ---

    async def create_key(
        self,
        organization_id: str,
        name: str,
        env: Env,
        *,
        expires_at: datetime | None = None,
        scopes: Sequence[str] = (),
        created_by: str | None = None,
    ) -> Issued:
        """A new key. `expires_at` (with its zone) lies ahead; the organization is active."""
        unit_id = rules.unit_id(organization_id, "organization")
        trimmed = rules.text(name, "name")
        author = rules.text(created_by or self._actor.name, "creator")
        async with self._transact() as connection:
            organization = await _active_organization(connection, unit_id)
            key, record = await ledger.insert_key(
                connection,
                organization_id=unit_id,
                name=trimmed,
                env=env,
                scopes=rules.scopes(scopes),
                expires_at=expires_at,
                created_by=author,
            )
            _require_ahead(record)
            await ledger.audit(connection, self._actor, "key.create", None, record)
        return Issued(key, record, organization, await self._publish([Change("key", record.id)]))

    async def list_keys(self, organization_id: str) -> list[KeyRecord]:
        """The organization's, the oldest first, ledger.LISTED_MAX of them at most."""
        unit_id = rules.unit_id(organization_id, "organization")
        async with self._transact() as connection:
            await ledger.organization(connection, unit_id)
            return await ledger.keys(connection, unit_id)

    async def find_key(self, key_id: str) -> KeyRecord:
        """One key, in whatever state."""
        async with self._transact() as connection:
            return await ledger.key(connection, rules.unit_id(key_id, "key"))

    async def update_key(self, key_id: str, changes: KeyChanges, *, guard: Guard | None = None) -> Changed[KeyRecord]:
        """Name, scopes, expiry (ahead, or None for never): what `changes` names. Not for a revoked key."""
        values = rules.key_changes(changes)
        everything = {"name": None, "scopes": None, "expires_at": None, **values, "moves_end": "expires_at" in values}
        async with self._changing(key_id, guard) as (connection, before):
            _require_unrevoked(before)
            await connection.execute(ledger.UPDATE_KEY, {"id": before.id, **everything})
            after = await ledger.key(connection, before.id)
            if values.get("expires_at") is not None:
                _require_ahead(after)
            await ledger.audit(connection, self._actor, "key.update", before, after)
        return Changed(after, await self._publish([Change("key", before.id)]))

    async def revoke_key(self, key_id: str, reason: str, *, guard: Guard | None = None) -> Changed[KeyRecord]:
        """Ends a key for good, at once. An expired one too: an expiry could be moved."""
        why = rules.text(reason, "reason", rules.REASON_CHARACTERS_MAX)
        async with self._changing(key_id, guard) as (connection, before):
            _require_unrevoked(before)
            await connection.execute(ledger.REVOKE_KEY, (why, before.id))
            after = await ledger.key(connection, before.id)
            await ledger.audit(connection, self._actor, "key.revoke", before, after)
        return Changed(after, await self._publish([Change("key", before.id)]))

    async def rotate_key(self, key_id: str, overlap_seconds: float, *, guard: Guard | None = None) -> Issued:
        """A new key like the old one (organization, name, env, scopes, expiry); the old one ends after the overlap.

        It ends at once with an overlap of 0, and never later than it would have ended anyway.
        """
        overlap = rules.overlap_seconds(overlap_seconds)
        async with self._changing(key_id, guard) as (connection, before):
            _require_rotatable(before)
            organization = await _active_organization(connection, before.organization_id)
            kept = {name: getattr(before, name) for name in ("organization_id", "name", "env", "scopes", "expires_at")}
            key, record = await ledger.insert_key(connection, created_by=self._actor.name, **kept)
            await connection.execute(ledger.REPLACE_KEY, (record.id, overlap, before.id))
            former = await ledger.key(connection, before.id)
            await ledger.audit(connection, self._actor, "key.create", None, record)
            await ledger.audit(connection, self._actor, "key.rotate", before, former)
        heard_by = await self._publish([Change("key", record.id), Change("key", before.id)])
        return Issued(key, record, organization, heard_by, former)

    @asynccontextmanager
    async def _changing(self, key_id: str, guard: Guard | None) -> AsyncIterator[tuple[Connection, KeyRecord]]:
        """A transaction that holds the key, and the key as it is before."""
        unit_id = rules.unit_id(key_id, "key")
        async with self._transact() as connection:
            before = await ledger.key(connection, unit_id, lock=True)
            _require_current(before, guard)
            yield connection, before


def _organization_action(values: Mapping[str, Any]) -> str:
    """The audit log's verb: the narrow one where a single thing changes."""
    match values:
        case {"tier": _} if len(values) == 1:
            return "organization.set_tier"
        case {"active": active} if len(values) == 1:
            return "organization.activate" if active else "organization.deactivate"
    return "organization.update"


async def _active_organization(connection: Connection, organization_id: str) -> OrganizationRecord:
    organization = await ledger.organization(connection, organization_id)
    if not organization.active:
        raise Conflict(f"organization {organization_id} is inactive: activate it first, its keys would all be refused")
    return organization


def _require_current(record: OrganizationRecord | KeyRecord, guard: Guard | None) -> None:
    if guard is not None and not guard(record):
        raise Outdated(f"{record.id} was changed since it was read: read it again, then decide")


def _require_ahead(key: KeyRecord) -> None:
    if key.status == "expired":
        raise Invalid("the expiry lies in the past", "expires_at")


def _require_unrevoked(key: KeyRecord) -> None:
    if key.status == "revoked":
        raise Conflict(f"key {key.id} is revoked already")


def _require_rotatable(key: KeyRecord) -> None:
    if key.status != "active":
        raise Conflict(f"key {key.id} is {key.status}: create a new one instead")
    if key.replaced_by is not None:
        raise Conflict(f"key {key.id} was rotated already, its successor is {key.replaced_by}")
