"""Organizations: create, list, read, change."""

from __future__ import annotations

from typing import Any

from sanic import HTTPResponse

from admin import answers, cursor
from admin.desk import Created, Desk, Repeat
from admin.precondition import Precondition, version_tag
from admin.request import AdminRequest, UnitId
from admin.shapes.organization import NewOrganization, OrganizationPatch, OrganizationQuery
from app.core.data import ledger, listing
from app.core.data.issuer import Changed
from app.core.data.records import OrganizationRecord
from app.core.data.rules import OrganizationChanges

SHOWN = ("id", "name", "tier", "active", "created_at", "updated_at")


def shown(record: OrganizationRecord) -> dict[str, Any]:
    """The wire shape."""
    fields = record.as_json()
    return {name: fields[name] for name in SHOWN}


def _created(made: Changed[OrganizationRecord]) -> Created:
    record = made.record
    return Created(shown(record), {"ETag": version_tag(record), "Location": f"/v1/organizations/{record.id}"})


async def create(request: AdminRequest, desk: Desk, body: NewOrganization, repeat: Repeat) -> HTTPResponse:
    """Create an organization, on its tier's limits."""
    return await desk.create(
        repeat, lambda issuer: issuer.create_organization(body.name, body.tier, active=body.active), _created
    )


async def list_all(request: AdminRequest, desk: Desk, query: OrganizationQuery) -> HTTPResponse:
    """List organizations, the oldest first.

    Filters add up. `next_cursor` is null on the last page.
    """
    run = desk.services.database.run
    found = await listing.organizations(run, query.filters(), query.limit, cursor.position(query))
    return answers.page(found, query, shown)


async def find(request: AdminRequest, desk: Desk, unit_id: UnitId) -> HTTPResponse:
    """Read one organization."""
    record = await desk.read(lambda connection: ledger.organization(connection, unit_id))
    return answers.unless_known(request, shown(record), version_tag(record))


async def change(
    request: AdminRequest, desk: Desk, unit_id: UnitId, body: OrganizationPatch, precondition: Precondition
) -> HTTPResponse:
    """Change an organization's name, tier or activity.

    All that the body names changes together, or nothing does. An inactive organization's keys are all refused. With
    If-Match nothing is changed that somebody else has changed since; without it the last writer wins.
    """
    changes: OrganizationChanges = body.changes()  # type: ignore[assignment]  # the shape has the same fields
    changed = await desk.change(
        lambda issuer: issuer.update_organization(
            unit_id, changes, guard=lambda record: precondition.admits(version_tag(record))
        )
    )
    return answers.json(shown(changed.record) | {"heard_by": changed.heard_by}, tag=version_tag(changed.record))
