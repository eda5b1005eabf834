"""What a gateway would answer to a key, and why, on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, model_validator

from admin.shapes.bucket import BUCKET, BucketAnswer
from admin.shapes.fields import ABSENT, Answer, Body, Uuid
from admin.shapes.key import KEY, KeyAnswer
from admin.shapes.organization import ORGANIZATION, LimitsAnswer, OrganizationAnswer

PLAN: Final = {"per_minute": 1000, "per_day": 100_000, "burst": 500, "source": "plan"}
REVOKED: Final[dict[str, Any]] = {
    "would_answer": {
        "status": 403,
        "message": "API key has been revoked",
        "why": "it was revoked at 2026-01-05T09:45:00Z: found in a public repository",
    },
    "key": {
        **KEY,
        "status": "revoked",
        "revoked_at": "2026-01-05T09:45:00Z",
        "revoked_reason": "found in a public repository",
    },
    "organization": ORGANIZATION,
    "limits": PLAN,
    "bucket": BUCKET,
    "workers": {"asked": 1, "answers": [{"node": "gateway-1:4711", "held_as": "cached", "would_answer": 403}]},
}


class Question(Body):
    """Whose fate is asked for: exactly one of the two. A key is looked at and neither kept nor logged."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"key_id": KEY["id"]},
            "oneOf": [{"required": ["api_key"]}, {"required": ["key_id"]}],
        }
    )
    api_key: Annotated[
        str, Field(pattern="^[!-~]{1,256}$", description="Whatever a client sends as its key.", repr=False)
    ] = ABSENT
    key_id: Uuid = ABSENT

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Question:
        if len(self.model_fields_set) != 1:
            raise ValueError("expected exactly one of api_key and key_id")
        return self


class OutlookAnswer(Answer):
    """The gateway's answer to a request with this key now. 200 stands for whatever the backend answers."""

    status: int
    message: Annotated[str, Field(description="The public message, word for word.")]
    why: str


class HoldingAnswer(Answer):
    """What one worker's memory says of the key."""

    node: str
    held_as: Annotated[
        Literal["static", "cached", "in doubt", "unknown", "absent"],
        Field(
            description="static: it stands in VALID_API_KEYS. cached: known. in doubt: known, and read again before "
            "its next use. unknown: remembered as nobody's. absent: its next use asks the database."
        ),
    ]
    would_answer: Annotated[
        int | None,
        Field(description="The status that memory alone leads to, limits apart; null: the database decides."),
    ]


class WorkersAnswer(Answer):
    """The workers that were asked what they hold, and those that answered within 0.3 seconds."""

    asked: int
    answers: list[HoldingAnswer]


class ExplanationAnswer(Answer):
    """Everything that a request with this key is judged by.

    `key`, `organization` and `limits` are null as far as there is none. `bucket` and `workers` are null while Redis
    cannot be asked.
    """

    model_config = ConfigDict(json_schema_extra={"example": REVOKED})
    would_answer: OutlookAnswer
    key: KeyAnswer | None
    organization: OrganizationAnswer | None
    limits: LimitsAnswer | None
    bucket: BucketAnswer | None
    workers: WorkersAnswer | None
