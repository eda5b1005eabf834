"""Kinds of values that several shapes share, each with its rule and the schema that says the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from app.core.data import rules

PAGE_ITEMS_MAX: Final = 200
PAGE_ITEMS_DEFAULT: Final = 50
_UUID: Final = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
_RFC3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)


ABSENT: Any = None
"""The default of a field that may be absent but not null; what was said is in `model_fields_set`."""


class Body(BaseModel):
    """What a request says in JSON: no type is bent into another, no unknown field is ignored."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Query(BaseModel):
    """What a target says after its `?`: text that each field reads by itself, each name at most once."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """What we say. Only documented, not validated: the tests compare."""

    model_config = ConfigDict(extra="forbid")


def _by_rule(rule: Callable[[Any], Any]) -> AfterValidator:
    """A rule of the core as a validator, so that its sentence gets its place among the others."""

    def validate(value: Any) -> Any:
        try:
            return rule(value)
        except rules.Refused as refusal:
            raise ValueError(str(refusal)) from None

    return AfterValidator(validate)


def _time(value: object) -> datetime:
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("expected a time with its zone, such as 2030-01-31T12:00:00Z (RFC 3339)")
    try:
        at = datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("there is no such time") from None
    if not 1970 <= at.year < 9999:
        raise ValueError("expected a time from 1970 to 9998")
    return at


def _whole(text: object) -> object:
    """Digits as a number; anything else is left for the type to refuse."""
    return int(text) if isinstance(text, str) and re.fullmatch("[0-9]{1,9}", text, re.ASCII) else text


def _truth(text: object) -> bool:
    if text not in ("true", "false"):
        raise ValueError("expected true or false")
    return text == "true"


Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=rules.NAME_CHARACTERS_MAX,
        description="Readable; spaces around it are dropped.",
        json_schema_extra={"pattern": rules.READABLE},
    ),
    _by_rule(lambda value: rules.text(value, "name")),
]
Reason = Annotated[
    str,
    Field(
        min_length=1,
        max_length=rules.REASON_CHARACTERS_MAX,
        description="Readable; kept with the key.",
        json_schema_extra={"pattern": rules.READABLE},
    ),
    _by_rule(lambda value: rules.text(value, "reason", rules.REASON_CHARACTERS_MAX)),
]
FilterText = Annotated[
    str,
    Field(min_length=1, max_length=rules.NAME_CHARACTERS_MAX),
    _by_rule(lambda value: rules.text(value, "value")),
]
Scope = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9:._/*-]{0,63}$")]
Scopes = Annotated[list[Scope], Field(max_length=rules.SCOPES_MAX, description="Each counts once, in the order given.")]
Uuid = Annotated[
    str, Field(pattern=_UUID, json_schema_extra={"format": "uuid"}), AfterValidator(lambda text: text.lower())
]
Time = Annotated[datetime, BeforeValidator(_time), WithJsonSchema({"type": "string", "format": "date-time"})]
TimeText = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
UuidText = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Tier = Literal["basic", "premium", "enterprise"]
QueryTruth = Annotated[bool, BeforeValidator(_truth), WithJsonSchema({"type": "boolean"})]
PageItems = Annotated[
    int, Field(ge=1, le=PAGE_ITEMS_MAX, strict=True, description="Items on a page."), BeforeValidator(_whole)
]
Days = Annotated[int, Field(ge=1, le=365, strict=True), BeforeValidator(_whole)]
Cursor = Annotated[
    str, Field(max_length=512, description="`next_cursor` of the page before, with the same filters as there.")
]
HeardBy = Annotated[
    int | None,
    Field(
        description="How many gateway workers were told at once. null: Redis could not tell them; they read the change "
        "from the database within 5 seconds."
    ),
]


PAGE: Final[dict[str, Any]] = {"limit": PAGE_ITEMS_DEFAULT, "cursor": "WyIzZjlhIiwiMjAyNi0wMS0wNVQwOTozMTowMFoiXQ"}
"""What to show for ListQuery."""


class ListQuery(Query):
    """What every list takes."""

    limit: PageItems = PAGE_ITEMS_DEFAULT
    cursor: Cursor | None = None

    def filters(self) -> dict[str, Any]:
        """What narrows the list: everything but the page."""
        return self.model_dump(exclude={"limit", "cursor"})
