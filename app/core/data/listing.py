"""Pages of organizations, keys and audit lines, by any of their filters: keyset pagination, one statement a page.

A page begins after a position (time and id of the last item seen), never at an offset: what is inserted or deleted
meanwhile neither repeats nor hides an item, and the thousandth page costs what the first one does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar

from app.core.data.database import Row
from app.core.data.ledger import KEYS, ORGANIZATIONS, key_of, organization_of
from app.core.data.records import AuditEntry, KeyRecord, OrganizationRecord

Item = TypeVar("Item")
Run = Callable[[str, Mapping[str, Any]], Awaitable[list[Row]]]
"""Rows of one statement: `Database.run`."""
Filters = Mapping[str, Any]
"""By the names in this module's tables of conditions; those that are None do not narrow anything."""

ORGANIZATION_CONDITIONS: Final = {
    "tier": "o.tier = %(tier)s",
    "active": "o.active = %(active)s",
    "name": "lower(o.name) LIKE lower(%(name_pattern)s)",
}
KEY_CONDITIONS: Final = {
    "organization_id": "organization_id = %(organization_id)s",
    "prefix": "prefix LIKE %(prefix_pattern)s",
    "unused_since": "coalesce(last_used_at, created_at) < %(unused_since)s",
}
STATUS_CONDITIONS: Final = {
    "active": "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())",
    "expiring": "revoked_at IS NULL AND expires_at > now()"
    " AND expires_at <= now() + make_interval(days => %(expiring_within_days)s::int)",
    "expired": "revoked_at IS NULL AND expires_at <= now()",
    "revoked": "revoked_at IS NOT NULL",
}
AUDIT_CONDITIONS: Final = {
    "who": "who = %(who)s",
    "action": "action = %(action)s",
    "subject_id": "subject_id = %(subject_id)s",
    "since": "at >= %(since)s",
    "until": "at < %(until)s",
}
_AUDIT: Final = """
    SELECT id, at, who, host(address), action, subject_kind, subject_id::text, before, after FROM audit_log
"""


class Position(NamedTuple):
    """Where a page ends: the time and the id (as text) of its last item."""

    at: datetime
    id: str


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """`following` is where the next page begins, None on the last one."""

    items: list[Item]
    following: Position | None


async def organizations(run: Run, filters: Filters, items_max: int, after: Position | None) -> Page[OrganizationRecord]:
    """The oldest first. Filters: `tier`, `active`, `name` (a part of it, in any case)."""
    values = _values(filters, items_max, after) | {"name_pattern": f"%{_escaped(str(filters.get('name')))}%"}
    where = _where(ORGANIZATION_CONDITIONS, filters, "(o.created_at, o.id) > (%(after_at)s, %(after_id)s::uuid)", after)
    rows = await run(f"{ORGANIZATIONS} {where} ORDER BY o.created_at, o.id LIMIT %(rows_max)s", values)
    records = [organization_of(row) for row in rows]
    return _page(records, items_max, lambda record: Position(record.created_at, record.id))


async def keys(run: Run, filters: Filters, items_max: int, after: Position | None) -> Page[KeyRecord]:
    """The oldest first. Filters: `organization_id`, `status` (with `expiring_within_days`), `prefix` (its beginning),
    `unused_since` (neither used nor made since)."""
    values = _values(filters, items_max, after) | {"prefix_pattern": f"{_escaped(str(filters.get('prefix')))}%"}
    conditions = KEY_CONDITIONS | {"status": STATUS_CONDITIONS.get(filters.get("status") or "", "")}
    where = _where(conditions, filters, "(created_at, id) > (%(after_at)s, %(after_id)s::uuid)", after)
    rows = await run(f"{KEYS} {where} ORDER BY created_at, id LIMIT %(rows_max)s", values)
    return _page([key_of(row) for row in rows], items_max, lambda record: Position(record.created_at, record.id))


async def audit(run: Run, filters: Filters, items_max: int, after: Position | None) -> Page[AuditEntry]:
    """The latest first. Filters: `who`, `action`, `subject_id`, `since` (included), `until` (not included)."""
    where = _where(AUDIT_CONDITIONS, filters, "(at, id) < (%(after_at)s, %(after_id)s::bigint)", after)
    query = f"{_AUDIT} {where} ORDER BY at DESC, id DESC LIMIT %(rows_max)s"
    entries = [AuditEntry(*row) for row in await run(query, _values(filters, items_max, after))]
    return _page(entries, items_max, lambda entry: Position(entry.at, str(entry.id)))


def _values(filters: Filters, items_max: int, after: Position | None) -> dict[str, Any]:
    at, unit_id = after or (None, None)
    return {**filters, "rows_max": items_max + 1, "after_at": at, "after_id": unit_id}


def _where(conditions: Mapping[str, str], filters: Filters, beyond: str, after: Position | None) -> str:
    chosen = [condition for name, condition in conditions.items() if filters.get(name) is not None]
    if after is not None:
        chosen.append(beyond)
    return f"WHERE {' AND '.join(chosen)}" if chosen else ""


def _escaped(text: str) -> str:
    """For LIKE, in which `_` and `%` mean something."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _page(found: list[Item], items_max: int, position: Callable[[Item], Position]) -> Page[Item]:
    items = found[:items_max]
    return Page(items, position(items[-1]) if len(found) > items_max else None)
