"""Organizations and their limits on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, model_validator

from admin.shapes.fields import (
    ABSENT,
    PAGE,
    Answer,
    Body,
    FilterText,
    HeardBy,
    ListQuery,
    Name,
    QueryTruth,
    Tier,
    TimeText,
    UuidText,
)
from app.core.data.rules import LIMIT_MAX

ORGANIZATION: Final[dict[str, Any]] = {
    "id": "00000000-0000-0000-0000-000000000002",
    "name": "TechStart Inc",
    "tier": "premium",
    "active": True,
    "created_at": "2026-01-05T09:30:00Z",
    "updated_at": "2026-01-05T09:30:00Z",
}
LIMITS: Final[dict[str, Any]] = {"per_minute": 500, "per_day": 20_000, "burst": 100}


class NewOrganization(Body):
    """An organization to create, on its tier's limits."""

    model_config = ConfigDict(json_schema_extra={"example": {"name": "TechStart Inc", "tier": "premium"}})
    name: Name
    tier: Tier
    active: bool = True


class OrganizationPatch(Body):
    """What to change; what is absent stays."""

    model_config = ConfigDict(json_schema_extra={"example": {"tier": "enterprise"}, "minProperties": 1})
    name: Name = ABSENT
    tier: Tier = ABSENT
    active: bool = ABSENT

    @model_validator(mode="after")
    def _changes_something(self) -> OrganizationPatch:
        if not self.model_fields_set:
            raise ValueError("there is nothing to change, expected name, tier or active")
        return self

    def changes(self) -> dict[str, Any]:
        """Only what was said."""
        return self.model_dump(include=self.model_fields_set)


class OrganizationQuery(ListQuery):
    """Filters of the list of organizations; they add up."""

    model_config = ConfigDict(
        json_schema_extra={"example": {**PAGE, "tier": "premium", "active": True, "name": "start"}}
    )

    tier: Tier | None = None
    active: QueryTruth | None = None
    name: Annotated[FilterText, Field(description="A part of the name, in any case.")] | None = None


class OrganizationAnswer(Answer):
    """One organization."""

    model_config = ConfigDict(json_schema_extra={"example": ORGANIZATION})
    id: UuidText
    name: str
    tier: str
    active: bool
    created_at: TimeText
    updated_at: TimeText


class ChangedOrganization(OrganizationAnswer):
    """One organization after a change."""

    model_config = ConfigDict(json_schema_extra={"example": {**ORGANIZATION, "heard_by": 4}})
    heard_by: HeardBy


class OrganizationPage(Answer):
    """Organizations, the oldest first."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [ORGANIZATION], "next_cursor": None}})
    items: list[OrganizationAnswer]
    next_cursor: str | None


Count = Annotated[int, Field(ge=1, le=LIMIT_MAX)]
Burst = Annotated[int, Field(ge=0, le=LIMIT_MAX)]


class NewLimits(Body):
    """An organization's own numbers, instead of its tier's."""

    model_config = ConfigDict(json_schema_extra={"example": LIMITS})
    per_minute: Count
    per_day: Count
    burst: Burst


class LimitsAnswer(Answer):
    """The limits in force, and whose they are: the organization's own or its plan's."""

    model_config = ConfigDict(json_schema_extra={"example": {**LIMITS, "source": "own"}})
    per_minute: int
    per_day: int
    burst: int
    source: Literal["own", "plan"]


class ChangedLimits(LimitsAnswer):
    """The limits in force after a change."""

    model_config = ConfigDict(json_schema_extra={"example": {**LIMITS, "source": "own", "heard_by": 4}})
    heard_by: HeardBy
