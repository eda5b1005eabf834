"""The error envelope on the wire, the public contract's."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from admin.shapes.fields import Answer, TimeText


class Problem(Answer):
    """One thing that is wrong with a request."""

    place: Annotated[
        list[str | int], Field(description="`path`, `query`, `header` or `body`, then the way to the value.")
    ]
    message: str


class FailureDetails(Answer):
    """What more there is to say: of a 422 every problem."""

    model_config = ConfigDict(extra="allow")
    problems: list[Problem] = Field(default_factory=list)


class Failure(Answer):
    """The code is the status; the message is for people and names nothing internal."""

    code: int
    message: str
    details: FailureDetails | None = None


class FailureAnswer(Answer):
    """What every error looks like."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "error": {"code": 404, "message": "key 5b1e6c1e-7d0a-4c57-9a39-2f4c0a3b9f10 not found"},
                "timestamp": "2026-01-05T09:31:00Z",
                "request_id": "0b4b6f0e-93a4-4f3c-8f4e-3f6f0d7f1a55",
            }
        }
    )
    error: Failure
    timestamp: TimeText
    request_id: str


def example(status: int, message: str, **details: Any) -> dict[str, Any]:
    """An error answer to show in the document."""
    error = {"code": status, "message": message} | ({"details": details} if details else {})
    return {
        "error": error,
        "timestamp": "2026-01-05T09:31:00Z",
        "request_id": "0b4b6f0e-93a4-4f3c-8f4e-3f6f0d7f1a55",
    }
