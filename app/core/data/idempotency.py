"""Requests that create, made repeatable: the first answer under an Idempotency-Key is kept for a day.

Claiming, creating and keeping the answer are one transaction, so a key is either done with its thing or was never used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
import psycopg

from app.core.changes.change_message import decode, encode
from app.core.data.database import Connection, Row
from app.core.data.rules import Conflict
from app.core.model import Change

KEPT_SECONDS: Final = 86_400

# Waits for a transaction that claimed the same key and is still open, up to the server's statement time-out.
_CLAIM: Final = """
    INSERT INTO idempotency_keys AS kept (actor, key, fingerprint) VALUES (%(actor)s, %(key)s, %(fingerprint)s)
    ON CONFLICT (actor, key) DO UPDATE
    SET fingerprint = excluded.fingerprint, created_at = now(),
        status = NULL, body = NULL, fields = NULL, changes = NULL
    WHERE kept.created_at < now() - make_interval(secs => %(seconds)s)
    RETURNING true
"""
_KEPT: Final = """
    SELECT fingerprint, status, body, fields, changes FROM idempotency_keys WHERE actor = %(actor)s AND key = %(key)s
"""
_KEEP: Final = """
    UPDATE idempotency_keys SET status = %s, body = %s, fields = %s::jsonb, changes = %s WHERE actor = %s AND key = %s
"""


class UnderWay(Conflict):
    """The first request with this key has not come to its end yet; this one may be tried again."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request that may come again. `fingerprint` stands for everything about it that decides what it does."""

    actor: str
    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer without its secret, and the changes to tell the gateways of."""

    status: int
    body: bytes
    fields: dict[str, str]
    changes: list[Change]


async def claim(connection: Connection, attempt: Attempt) -> Kept | None:
    """None when this is the first time; else the first answer. Two at once: the second waits for the first to commit.

    Raises Conflict when the key was used for another request, UnderWay when the first one takes longer than a
    statement may.
    """
    values: dict[str, Any] = {"actor": attempt.actor, "key": attempt.key, "fingerprint": attempt.fingerprint}
    try:
        cursor = await connection.execute(_CLAIM, values | {"seconds": KEPT_SECONDS})
    except psycopg.errors.QueryCanceled:
        raise UnderWay("the first request with this Idempotency-Key is still being worked on") from None
    if await cursor.fetchone() is not None:
        return None
    row = await (await connection.execute(_KEPT, values)).fetchone()
    if row is None:  # it was purged between the two statements
        raise Conflict("the Idempotency-Key has just become too old, send the request again")
    if row[0] != attempt.fingerprint:
        raise Conflict("the Idempotency-Key was used for another request")
    return _kept(row)


def _kept(row: Row) -> Kept:
    _, status, body, fields, changes = row
    return Kept(status, body.encode(), fields, decode(changes.encode()))


async def keep(connection: Connection, attempt: Attempt, answer: Kept) -> None:
    """Keeps the answer of an attempt that this transaction has claimed."""
    fields, changes = orjson.dumps(answer.fields).decode(), encode(answer.changes).decode()
    values = (answer.status, answer.body.decode(), fields, changes, attempt.actor, attempt.key)
    await connection.execute(_KEEP, values)


async def purge(run: Callable[[str, tuple[Any, ...]], Awaitable[list[Row]]]) -> None:
    """Deletes what is older than a day. Call it hourly; `run` is `Database.run`."""
    await run("DELETE FROM idempotency_keys WHERE created_at < now() - make_interval(secs => %s)", (KEPT_SECONDS,))
