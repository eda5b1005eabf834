"""An organization's limits: its own numbers, or its plan's."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sanic import HTTPResponse

from admin import answers
from admin.desk import Desk
from admin.precondition import Precondition, limits_tag
from admin.request import AdminRequest, UnitId
from admin.shapes.organization import NewLimits
from app.core.data import ledger
from app.core.data.records import OrganizationRecord
from app.core.model import Limits


def shown(record: OrganizationRecord) -> dict[str, Any]:
    """The wire shape."""
    return {**asdict(record.limits), "source": "own" if record.has_own_limits else "plan"}


async def find(request: AdminRequest, desk: Desk, unit_id: UnitId) -> HTTPResponse:
    """Read the limits in force, and whose they are."""
    record = await desk.read(lambda connection: ledger.organization(connection, unit_id))
    return answers.unless_known(request, shown(record), limits_tag(record))


async def set_own(
    request: AdminRequest, desk: Desk, unit_id: UnitId, body: NewLimits, precondition: Precondition
) -> HTTPResponse:
    """Give an organization numbers of its own.

    In force at the gateways from the next request on that they check; what was used so far still counts.
    """
    return await _set(desk, unit_id, Limits(body.per_minute, body.per_day, body.burst), precondition)


async def use_plan(request: AdminRequest, desk: Desk, unit_id: UnitId, precondition: Precondition) -> HTTPResponse:
    """Put an organization back on its plan's limits.

    Answers the limits in force from now on; it is no mistake to ask for it twice.
    """
    return await _set(desk, unit_id, None, precondition)


async def _set(desk: Desk, unit_id: UnitId, limits: Limits | None, precondition: Precondition) -> HTTPResponse:
    changed = await desk.change(
        lambda issuer: issuer.set_limits(unit_id, limits, guard=lambda record: precondition.admits(limits_tag(record)))
    )
    return answers.json(shown(changed.record) | {"heard_by": changed.heard_by}, tag=limits_tag(changed.record))
