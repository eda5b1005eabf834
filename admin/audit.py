"""The audit log: who did what to what, when, from where."""

from __future__ import annotations

from sanic import HTTPResponse

from admin import answers, cursor
from admin.desk import Desk
from admin.request import AdminRequest
from admin.shapes.audit import AuditQuery
from app.core.data import listing
from app.core.data.records import AuditEntry


async def list_all(request: AdminRequest, desk: Desk, query: AuditQuery) -> HTTPResponse:
    """Read the audit log, the latest first.

    Append-only: the database refuses to change or delete a line. Filters add up.
    """
    found = await listing.audit(desk.services.database.run, query.filters(), query.limit, cursor.position(query))
    return answers.page(found, query, AuditEntry.as_json)
