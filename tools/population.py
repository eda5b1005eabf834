"""Many organizations with many keys, for measuring growth. Key number n is always the same: nobody keeps a list."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # the load generator starts often, and only needs `key`
    from app.core.data.database import Database

ROWS_MAX: Final = 2_500
"""In one statement: some 0.1 s of the server's time, far from the bound that `Database` sets to each."""

# The limits are wide open: what grows is measured, not what is refused.
_ORGANIZATIONS: Final = """
    WITH made AS (
        INSERT INTO organizations (id, name, tier)
        SELECT md5('organization ' || n)::uuid, 'organization ' || n, 'enterprise'
        FROM generate_series(%s::int, %s::int) AS n
        RETURNING id
    )
    INSERT INTO organization_limits (organization_id, per_minute, per_day, burst)
    SELECT id, 100000000, 2000000000, 0 FROM made
"""
_KEYS: Final = """
    INSERT INTO api_keys (organization_id, name, env, prefix, key_digest)
    SELECT md5('organization ' || n %% %s::int)::uuid, 'key ' || n, 'test', 'sk_test_' || left(md5('key ' || n), 4),
        encode(sha256(convert_to('sk_test_' || md5('key ' || n), 'UTF8')), 'hex')
    FROM generate_series(%s::int, %s::int) AS n
"""


def key(number: int) -> bytes:
    """The key with this number, from 0 on: the same text as the statement above makes. Guessable: for benches only."""
    return b"sk_test_" + hashlib.md5(b"key %d" % number, usedforsecurity=False).hexdigest().encode()


async def fill(database: Database, keys: int, organizations: int) -> AsyncIterator[int]:
    """Writes organizations, then keys spread evenly over them, and yields the number of rows written after each step.

    The server makes the rows out of their numbers, so nothing travels. Raises StoreUnavailable.
    """
    for first in range(0, organizations, ROWS_MAX):
        last = min(first + ROWS_MAX, organizations) - 1
        await database.run(_ORGANIZATIONS, (first, last))
        yield last - first + 1
    for first in range(0, keys, ROWS_MAX):
        last = min(first + ROWS_MAX, keys) - 1
        await database.run(_KEYS, (organizations, first, last))
        yield last - first + 1
