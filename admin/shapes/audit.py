"""The audit log on the wire."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from admin.shapes.fields import PAGE, Answer, FilterText, ListQuery, Time, TimeText, Uuid, UuidText
from admin.shapes.organization import ORGANIZATION


class AuditQuery(ListQuery):
    """Filters of the audit log; they add up."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                **PAGE,
                "who": "ops",
                "action": "organization.deactivate",
                "subject_id": ORGANIZATION["id"],
                "since": "2026-01-05T00:00:00Z",
                "until": "2026-01-06T00:00:00Z",
            }
        }
    )

    who: FilterText | None = None
    action: Annotated[str, Field(pattern=r"^[a-z_]{1,40}\.[a-z_]{1,40}$")] | None = None
    subject_id: Uuid | None = None
    since: Annotated[Time, Field(description="At this time or later.")] | None = None
    until: Annotated[Time, Field(description="Before this time.")] | None = None


class AuditEntryAnswer(Answer):
    """Who did what to what, when, from where; the thing before and after it. Never a secret."""

    id: int
    at: TimeText
    who: Annotated[str, Field(description="The token's name; `cli` for the commands.")]
    address: Annotated[str | None, Field(description="null for the commands.")]
    action: str
    subject_kind: str
    subject_id: UuidText | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class AuditPage(Answer):
    """Lines of the audit log, the latest first."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "items": [
                    {
                        "id": 42,
                        "at": "2026-01-05T09:30:00Z",
                        "who": "ops",
                        "address": "127.0.0.1",
                        "action": "organization.deactivate",
                        "subject_kind": "organization",
                        "subject_id": ORGANIZATION["id"],
                        "before": ORGANIZATION,
                        "after": {**ORGANIZATION, "active": False},
                    }
                ],
                "next_cursor": None,
            }
        }
    )
    items: list[AuditEntryAnswer]
    next_cursor: str | None
