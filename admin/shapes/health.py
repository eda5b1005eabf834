"""The health endpoints on the wire, as in the public app."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from admin.shapes.fields import Answer, TimeText

Check = Literal["ok", "unreachable", "not configured", "unknown"]


class HealthAnswer(Answer):
    """200 as long as the process serves."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "status": "healthy",
                "uptime_seconds": 86.4,
                "timestamp": "2026-01-05T09:30:00Z",
                "version": "0.1.0",
            }
        }
    )
    status: Annotated[Literal["healthy", "degraded"], Field(description="degraded while a dependency is away.")]
    uptime_seconds: float
    timestamp: TimeText
    version: str


class ReadyAnswer(Answer):
    """503 while the database was never reached, and while draining."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "ready": True,
                "timestamp": "2026-01-05T09:30:00Z",
                "checks": {"database": "ok", "redis": "not configured"},
            }
        }
    )
    ready: bool
    timestamp: TimeText
    checks: dict[str, Check]


class LiveAnswer(Answer):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"example": {"alive": True, "timestamp": "2026-01-05T09:30:00Z"}})
    alive: Literal[True]
    timestamp: TimeText
