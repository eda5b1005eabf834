"""API keys: create, list, read, change, revoke, rotate."""

from __future__ import annotations

from typing import Any

from sanic import HTTPResponse

from admin import answers, cursor
from admin.desk import Created, Desk, Repeat
from admin.precondition import Precondition, version_tag
from admin.request import AdminRequest, UnitId
from admin.shapes.key import KeyPatch, KeyQuery, NewKey, Revocation, Rotation
from app.core.data import ledger, listing
from app.core.data.issuer import Changed, Guard, Issued
from app.core.data.records import KeyRecord
from app.core.data.rules import KeyChanges


def _guard(precondition: Precondition) -> Guard:
    return lambda record: precondition.admits(version_tag(record))


def _changed(changed: Changed[KeyRecord]) -> HTTPResponse:
    body: dict[str, Any] = changed.record.as_json() | {"heard_by": changed.heard_by}
    return answers.json(body, tag=version_tag(changed.record))


def _created(made: Issued) -> Created:
    record = made.record
    former = {"replaces": made.former.as_json()} if made.former else {}
    fields = {"ETag": version_tag(record), "Location": f"/v1/keys/{record.id}"}
    return Created(record.as_json() | former, fields, made.key, has_secret=True)


async def create(request: AdminRequest, desk: Desk, body: NewKey, repeat: Repeat) -> HTTPResponse:
    """Create a key and answer it, this once.

    The key itself is stored nowhere, only its SHA-256 digest. So a replay under the same Idempotency-Key answers the
    same but for `api_key`, which is null then: whoever lost the first answer revokes this key and creates another.
    """
    return await desk.create(
        repeat,
        lambda issuer: issuer.create_key(
            body.organization_id, body.name, body.env, expires_at=body.expires_at, scopes=body.scopes
        ),
        _created,
    )


async def list_all(request: AdminRequest, desk: Desk, query: KeyQuery) -> HTTPResponse:
    """List keys, the oldest first; never the keys themselves.

    Filters add up. A key that is `expiring` is active too.
    """
    found = await listing.keys(desk.services.database.run, query.filters(), query.limit, cursor.position(query))
    return answers.page(found, query, KeyRecord.as_json)


async def find(request: AdminRequest, desk: Desk, unit_id: UnitId) -> HTTPResponse:
    """Read one key, without the key.

    The ETag counts changes. It does not move with `last_used_at`, which is at most a minute behind.
    """
    record = await desk.read(lambda connection: ledger.key(connection, unit_id))
    return answers.json(record.as_json(), tag=version_tag(record))


async def change(
    request: AdminRequest, desk: Desk, unit_id: UnitId, body: KeyPatch, precondition: Precondition
) -> HTTPResponse:
    """Change a key's name, expiry or scopes.

    An expiry must lie ahead, null takes it away; a key that has expired comes back to life by a new one. With If-Match
    nothing is changed that somebody else has changed since; without it the last writer wins.
    """
    changes: KeyChanges = body.changes()  # type: ignore[assignment]  # the shape has the same fields
    return _changed(await desk.change(lambda issuer: issuer.update_key(unit_id, changes, guard=_guard(precondition))))


async def revoke(
    request: AdminRequest, desk: Desk, unit_id: UnitId, body: Revocation, precondition: Precondition
) -> HTTPResponse:
    """End a key for good, at once."""
    return _changed(
        await desk.change(lambda issuer: issuer.revoke_key(unit_id, body.reason, guard=_guard(precondition)))
    )


async def rotate(
    request: AdminRequest, desk: Desk, unit_id: UnitId, body: Rotation, precondition: Precondition, repeat: Repeat
) -> HTTPResponse:
    """Create a key like this one, which ends by itself after the overlap.

    The new key keeps organization, name, env, scopes and expiry. `replaces` is the old key: its `expires_at` says when
    it ends, its `last_used_at` whether somebody still uses it. A replay answers `api_key` null, as for a creation.
    """
    return await desk.create(
        repeat,
        lambda issuer: issuer.rotate_key(unit_id, body.overlap_seconds, guard=_guard(precondition)),
        _created,
    )
