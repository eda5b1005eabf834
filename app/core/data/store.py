"""What the gateway asks PostgreSQL: every statement it sends stands here."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from app.core.data.database import Database, Row
from app.core.data.database import StoreUnavailable as StoreUnavailable
from app.core.model import Change, Credential, Limits, Organization

USES_MAX: Final = 200
"""Rows in one `record_use` statement: 20 to 50 ms of the server's time, far from its time-out."""
RETENTION_SECONDS: Final = 86_400
MARK_SECONDS_MAX: Final = RETENTION_SECONDS - 3_600
"""A mark's age. The hour between the two is for transactions that were open when the mark was made."""
CHANGES_MAX: Final = 10_000

_CREDENTIALS: Final = """
    SELECT decode(k.key_digest, 'hex'), k.id::text, k.revoked_at IS NOT NULL, extract(epoch FROM k.expires_at)::float8,
        o.id::text, o.tier, o.active,
        coalesce(l.per_minute, p.per_minute), coalesce(l.per_day, p.per_day), coalesce(l.burst, p.burst)
    FROM api_keys k
    JOIN organizations o ON o.id = k.organization_id
    JOIN plans p ON p.tier = o.tier
    LEFT JOIN organization_limits l ON l.organization_id = o.id
"""
# One statement has one snapshot: what it reports as the mark is exactly what its rows were seen with. Rows with an xid
# from the future came out of another cluster's dump.
_CHANGES: Final = """
    SELECT pg_current_snapshot()::text, (SELECT oid::int8 FROM pg_database WHERE datname = current_database()),
        extract(epoch FROM now())::float8,
        ARRAY(
            SELECT DISTINCT kind || ' ' || coalesce(ref::text, '') FROM changes
            WHERE xid >= pg_snapshot_xmin(%(snapshot)s::pg_snapshot)
                AND xid < pg_snapshot_xmax(pg_current_snapshot())
                AND NOT pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot)
            LIMIT %(limit)s
        )
"""
# Locked in order of id: several gateways record the same keys at the same moment, and must not deadlock.
_USE: Final = """
    WITH used AS (SELECT unnest(%s::uuid[]) AS id, to_timestamp(unnest(%s::float8[])) AS at),
        locked AS (SELECT id, at FROM used JOIN api_keys USING (id) ORDER BY id FOR NO KEY UPDATE OF api_keys)
    UPDATE api_keys SET last_used_at = greatest(last_used_at, locked.at) FROM locked WHERE api_keys.id = locked.id
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """A position among the changes, opaque to callers.

    Ids are handed out before the commit and so become visible out of order; a snapshot says exactly which transactions
    were visible. `database` (its oid) and `at` (unix seconds, the server's) tell whether the mark still means anything.
    """

    snapshot: str
    database: int
    at: float

    def is_continued_by(self, later: Mark) -> bool:
        """Whether no change between the two can have been missed: same database, time forward, nothing pruned."""
        ages_well = later.at - self.at <= MARK_SECONDS_MAX
        return self.database == later.database and self._xmin <= later._xmin and ages_well

    @property
    def _xmin(self) -> int:
        return int(self.snapshot.partition(":")[0])


class Store(Database):
    """The gateway's statements. Every method raises StoreUnavailable, at most a second after the call."""

    async def credential_by_digest(self, digest: bytes) -> Credential | None:
        """The key with this digest (32 bytes), whatever its state; None when there is none."""
        return (await self.credentials_by_digests([digest])).get(digest)

    async def credentials_by_digests(self, digests: Sequence[bytes]) -> dict[bytes, Credential]:
        """Those of the keys that exist, in one statement. Callers ask for a few hundred at a time."""
        rows = await self.run(
            f"{_CREDENTIALS} WHERE k.key_digest = ANY(%s::text[])", (_array(map(bytes.hex, digests)),)
        )
        return {row[0]: _credential(row) for row in rows}

    async def credential_by_id(self, key_id: str) -> tuple[bytes, Credential] | None:
        """The digest and the key with this id (UUID text), whatever its state; None when there is none."""
        rows = await self.run(f"{_CREDENTIALS} WHERE k.id = %s", (key_id,))
        return (rows[0][0], _credential(rows[0])) if rows else None

    async def changes_after(self, mark: Mark | None) -> tuple[Mark, list[Change], bool]:
        """What was committed after `mark`: the new mark, the changes without repetitions, and whether some are lost.

        None marks nothing: it returns the present mark and no changes. The third value is true for another database, an
        older state of it, a mark past the retention, or more than CHANGES_MAX at once: anything cached may be stale.
        """
        snapshot = mark.snapshot if mark else None
        [(*now, texts)] = await self.run(_CHANGES, {"snapshot": snapshot, "limit": CHANGES_MAX + 1})
        later = Mark(*now)
        if mark and (len(texts) > CHANGES_MAX or not mark.is_continued_by(later)):
            return later, [], True
        return later, [_change(text) for text in texts], False

    async def record_use(self, used: Mapping[str, float]) -> None:
        """Sets `last_used_at`: key ids with unix seconds, in any order, never backwards, unknown ids ignored.

        Up to USES_MAX keys are one statement; when a later one fails the earlier ones stay, and all may be sent again.
        """
        uses = iter(used.items())
        while chunk := list(itertools.islice(uses, USES_MAX)):
            await self.run(_USE, (_array(key_id for key_id, _ in chunk), _array(repr(at) for _, at in chunk)))

    async def prune_changes(self) -> None:
        """Deletes changes past the retention. Call it hourly, from any number of workers."""
        await self.run("DELETE FROM changes WHERE at < now() - make_interval(secs => %s)", (RETENTION_SECONDS,))


_limits: Final = lru_cache(maxsize=65_536)(Limits)
"""Organizations of one plan share one object, and what is remembered for it (announce.py)."""


def _array(texts: Iterable[str]) -> str:
    """An array as PostgreSQL writes it, of texts that need no quotes: ids, digests, numbers. The event loop would be
    held a hundred times as long by what psycopg does with a list (1,000 ids: 3.7 ms)."""
    return f"{{{','.join(texts)}}}"


def _credential(row: Row) -> Credential:
    _, key_id, revoked, expires_at, organization_id, tier, active, per_minute, per_day, burst = row
    organization = Organization(organization_id, tier, _limits(per_minute, per_day, burst), active)
    return Credential(key_id, organization, revoked, expires_at)


def _change(text: str) -> Change:
    kind, _, ref = text.partition(" ")
    return Change(kind, ref)  # type: ignore[arg-type]  # the table's CHECK allows only Change's kinds
