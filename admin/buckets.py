"""What an organization's bucket holds now, and giving it back full."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sanic import HTTPResponse

from admin import answers
from admin.desk import Desk
from admin.request import AdminRequest, UnitId
from app.core.data import ledger
from app.core.envelope import rfc3339
from app.core.model import Verdict


def shown(bucket: Verdict) -> dict[str, Any]:
    """The wire shape."""
    return {
        **asdict(bucket.limits),
        "minute_used": bucket.minute_used,
        "daily_used": bucket.daily_used,
        "remaining_minute": bucket.remaining_minute,
        "remaining_day": bucket.remaining_day,
        "burst_remaining": bucket.burst_remaining,
        "reset_minute": rfc3339(bucket.reset_minute),
        "reset_day": rfc3339(bucket.reset_day),
        "refused_by": bucket.refused_by,
        "at": rfc3339(bucket.now),
    }


async def live(request: AdminRequest, desk: Desk, unit_id: UnitId) -> HTTPResponse:
    """Read what an organization has used and has left, as the gateways count it.

    Looking counts as no request. 503 without Redis: each worker counts its own share then.
    """
    record = await desk.read(lambda connection: ledger.organization(connection, unit_id))
    return answers.json(shown(await desk.services.gauge.live(record.as_organization())))


async def reset(request: AdminRequest, desk: Desk, unit_id: UnitId) -> HTTPResponse:
    """Give an organization its minute, its day and its burst back, as if it had used nothing.

    In force at once at the gateways that hear of it, within a second at all others. 503 without Redis, and nothing is
    reset then.
    """
    gauge = desk.services.gauge
    full, heard_by = await desk.operate(lambda operations: operations.reset_limits(unit_id, gauge.live, gauge.reset))
    return answers.json(shown(full) | {"heard_by": heard_by})
