"""Records of organizations and keys, read and written inside a transaction that the caller holds; and the audit log.

No rules here: what may be done to a record is `issuer`'s to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from app.core.data.database import Connection, Cursor, Row
from app.core.data.records import Actor, KeyRecord, OrganizationRecord
from app.core.data.rules import Invalid, NotFound
from app.core.keys.credential import Env, digest, mint, prefix
from app.core.model import Change, Limits

LISTED_MAX: Final = 10_000

ORGANIZATIONS: Final = """
    SELECT o.id::text, o.name, o.tier, o.active, o.created_at, o.updated_at, o.version, l.organization_id IS NOT NULL,
        coalesce(l.per_minute, p.per_minute), coalesce(l.per_day, p.per_day), coalesce(l.burst, p.burst)
    FROM organizations o JOIN plans p ON p.tier = o.tier
    LEFT JOIN organization_limits l ON l.organization_id = o.id
"""
KEYS: Final = """
    SELECT id::text, organization_id::text, name, env, prefix,
        CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= now() THEN 'expired' ELSE 'active' END,
        created_at, created_by, last_used_at, expires_at, revoked_at, revoked_reason, replaced_by::text, version, scopes
    FROM api_keys
"""
SET_OWN_LIMITS: Final = """
    INSERT INTO organization_limits (organization_id, per_minute, per_day, burst)
    VALUES (%(id)s, %(per_minute)s, %(per_day)s, %(burst)s)
    ON CONFLICT (organization_id) DO UPDATE
    SET per_minute = excluded.per_minute, per_day = excluded.per_day, burst = excluded.burst
"""
UPDATE_ORGANIZATION: Final = """
    UPDATE organizations SET name = coalesce(%(name)s, name), tier = coalesce(%(tier)s, tier),
        active = coalesce(%(active)s, active)
    WHERE id = %(id)s
"""
UPDATE_KEY: Final = """
    UPDATE api_keys SET name = coalesce(%(name)s, name), scopes = coalesce(%(scopes)s::text[], scopes),
        expires_at = CASE WHEN %(moves_end)s THEN %(expires_at)s::timestamptz ELSE expires_at END
    WHERE id = %(id)s
"""
REVOKE_KEY: Final = "UPDATE api_keys SET revoked_at = now(), revoked_reason = %s WHERE id = %s"
REPLACE_KEY: Final = """
    UPDATE api_keys SET replaced_by = %s, expires_at = least(expires_at, now() + make_interval(secs => %s))
    WHERE id = %s
"""


async def require_tier(connection: Connection, tier: str) -> None:
    """Raises Invalid unless there is such a plan."""
    rows = await (await connection.execute("SELECT tier FROM plans ORDER BY per_minute")).fetchall()
    tiers = [row[0] for row in rows]
    if tier not in tiers:
        raise Invalid(f"the tier is unknown, expected one of {', '.join(tiers)}", "tier")


async def organization(connection: Connection, organization_id: str, *, lock: bool = False) -> OrganizationRecord:
    """The one with this id; `lock` keeps others from changing it until the transaction ends. Raises NotFound."""
    if lock:  # by itself: a statement that waited for the lock would still show the limits of before its wait
        await connection.execute("SELECT FROM organizations WHERE id = %s FOR NO KEY UPDATE", (organization_id,))
    row = await (await connection.execute(ORGANIZATIONS + "WHERE o.id = %s", (organization_id,))).fetchone()
    if row is None:
        raise NotFound(f"organization {organization_id} not found")
    return organization_of(row)


async def organizations(connection: Connection) -> list[OrganizationRecord]:
    """The oldest first, LISTED_MAX of them at most."""
    rows = await connection.execute(ORGANIZATIONS + "ORDER BY o.created_at, o.id LIMIT %s", (LISTED_MAX,))
    return [organization_of(row) for row in await rows.fetchall()]


async def key(connection: Connection, key_id: str, *, lock: bool = False) -> KeyRecord:
    """The one with this id; `lock` keeps others from changing it until the transaction ends. Raises NotFound."""
    query = KEYS + "WHERE id = %s" + (" FOR NO KEY UPDATE" if lock else "")
    row = await (await connection.execute(query, (key_id,))).fetchone()
    if row is None:
        raise NotFound(f"key {key_id} not found")
    return key_of(row)


async def keys(connection: Connection, organization_id: str) -> list[KeyRecord]:
    """The organization's, the oldest first, LISTED_MAX of them at most."""
    query = KEYS + "WHERE organization_id = %s ORDER BY created_at, id LIMIT %s"
    rows = await connection.execute(query, (organization_id, LISTED_MAX))
    return [key_of(row) for row in await rows.fetchall()]


async def insert_key(
    connection: Connection,
    *,
    organization_id: str,
    name: str,
    env: Env,
    scopes: Sequence[str],
    expires_at: datetime | None,
    created_by: str,
) -> tuple[str, KeyRecord]:
    """A new key in clear, and its record. Nobody can read the key again once the caller lets go of it."""
    secret = mint(env)
    cursor = await connection.execute(
        """
        INSERT INTO api_keys (organization_id, name, env, prefix, key_digest, scopes, expires_at, created_by)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING id::text
        """,
        (organization_id, name, env, prefix(secret), digest(secret).hex(), list(scopes), expires_at, created_by),
    )
    return secret, await key(connection, await _returned_id(cursor))


async def audit(
    connection: Connection,
    actor: Actor,
    action: str,
    before: OrganizationRecord | KeyRecord | None,
    after: OrganizationRecord | KeyRecord,
) -> None:
    """One line in the audit log: `action` is `kind.verb`, `before` None for a thing that is new."""
    await note(connection, actor, action, after.id, before.as_json() if before else None, after.as_json())


async def note(
    connection: Connection,
    actor: Actor,
    action: str,
    subject_id: str | None,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
) -> None:
    """As `audit`, for what is no change of a record; the states are what JSON can say of it."""
    states = [orjson.dumps(state).decode() if state is not None else None for state in (before, after)]
    await connection.execute(
        """
        INSERT INTO audit_log (who, address, action, subject_kind, subject_id, before, after)
        VALUES (%s, %s::inet, %s, %s, %s, %s::jsonb, %s::jsonb)
        """,
        (*actor, action, action.partition(".")[0], subject_id, *states),
    )


async def announce(connection: Connection, change: Change) -> None:
    """A row in the journal of changes, for what no trigger writes: every gateway reads it, with Redis or without."""
    await connection.execute("INSERT INTO changes (kind, ref) VALUES (%s, %s)", (change.kind, change.id or None))


async def insert_organization(
    connection: Connection, name: str, tier: str, *, active: bool = True
) -> OrganizationRecord:
    """A new one, on a plan that exists."""
    query = "INSERT INTO organizations (name, tier, active) VALUES (%s, %s, %s) RETURNING id::text"
    cursor = await connection.execute(query, (name, tier, active))
    return await organization(connection, await _returned_id(cursor))


async def _returned_id(cursor: Cursor) -> str:
    [(unit_id,)] = await cursor.fetchall()
    return str(unit_id)


def organization_of(row: Row) -> OrganizationRecord:
    """A row of ORGANIZATIONS."""
    *columns, has_own_limits, per_minute, per_day, burst = row
    values = (*columns, Limits(per_minute, per_day, burst), has_own_limits)
    return OrganizationRecord(*values)


def key_of(row: Row) -> KeyRecord:
    """A row of KEYS."""
    *columns, scopes = row
    values = (*columns, tuple(scopes))
    return KeyRecord(*values)
