"""What an organization's bucket holds, on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from admin.shapes.fields import Answer, HeardBy, TimeText

BUCKET: Final[dict[str, Any]] = {
    "per_minute": 1000,
    "per_day": 100_000,
    "burst": 500,
    "minute_used": 12,
    "daily_used": 3456,
    "remaining_minute": 988,
    "remaining_day": 96_544,
    "burst_remaining": 500,
    "reset_minute": "2026-01-05T09:32:00Z",
    "reset_day": "2026-01-06T00:00:00Z",
    "refused_by": None,
    "at": "2026-01-05T09:31:12Z",
}


class BucketAnswer(Answer):
    """What the gateways have counted, and what is left, under the limits in force; times by Redis's clock."""

    model_config = ConfigDict(json_schema_extra={"example": BUCKET})
    per_minute: int
    per_day: int
    burst: int
    minute_used: Annotated[int, Field(description="Requests admitted in this UTC minute.")]
    daily_used: Annotated[int, Field(description="Requests admitted on this UTC day.")]
    remaining_minute: Annotated[int, Field(description="Left of the minute's own; saved requests come on top.")]
    remaining_day: int
    burst_remaining: Annotated[int, Field(description="Requests saved up from before and left.")]
    reset_minute: TimeText
    reset_day: TimeText
    refused_by: Annotated[
        Literal["minute", "daily"] | None,
        Field(description="What the next request would run into; null: it is admitted."),
    ]
    at: TimeText


class ResetAnswer(BucketAnswer):
    """The bucket as it is given back."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                **BUCKET,
                "minute_used": 0,
                "daily_used": 0,
                "remaining_minute": 1000,
                "remaining_day": 100_000,
                "heard_by": 4,
            }
        }
    )
    heard_by: HeardBy
