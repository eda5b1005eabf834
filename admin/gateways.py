"""The gateway workers that live, and what is said to all of them."""

from __future__ import annotations

from typing import Any

from sanic import HTTPResponse

from admin import answers
from admin.desk import Desk
from admin.request import AdminRequest
from admin.shapes.gateway import Invalidation
from app.core.changes.presence_message import Worker
from app.core.envelope import rfc3339
from app.core.model import Change


def shown(worker: Worker) -> dict[str, Any]:
    """The wire shape."""
    return {
        "node": worker.node,
        "version": worker.version,
        "since": rfc3339(worker.since),
        "keys_cached": worker.keys_cached,
        "last_change_at": None if worker.last_change_at is None else rfc3339(worker.last_change_at),
    }


async def list_live(request: AdminRequest, desk: Desk) -> HTTPResponse:
    """List the live gateway workers.

    Each says every second that it lives, through Redis; one that is silent for 5 seconds is not listed. 503 without
    Redis: who lives cannot be told then, and the gateways work on all the same.
    """
    workers = await desk.services.roster.workers()
    return answers.json({"items": [shown(worker) for worker in workers], "next_cursor": None})


async def invalidate(request: AdminRequest, desk: Desk, body: Invalidation) -> HTTPResponse:
    """Have every gateway read a key, an organization's keys, or everything again.

    Changes made here or in the database need no such help. `heard_by` counts gateway workers. It is null while Redis is
    away; the gateways then find the request in the database within 5 seconds.
    """
    if body.key_id:
        change = Change("key", body.key_id)
    elif body.organization_id:
        change = Change("organization", body.organization_id)
    else:
        change = Change("all")
    heard_by = await desk.operate(lambda operations: operations.invalidate(change))
    return answers.json({"heard_by": heard_by})
