"""The OpenAPI 3.0 document, made from the table of endpoints and the signatures of their handlers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel

from admin.endpoint import Endpoint
from admin.failures import Failure, failures
from admin.json_schema import REFERENCE, schemas
from admin.shapes.failure import FailureAnswer
from app.core.envelope import JSON
from app.core.process.version import VERSION

INTRODUCTION: Final = """
Organizations, API keys, limits and gateways of the SaaS gateway.

**Who may.** Each request carries `Authorization: Bearer <admin token>`. A `viewer` reads, an `editor` also writes, an
`owner` also reads the audit log and resets limits. Wrong tokens slow their own address down.

**Errors** have one envelope; a 422 lists every problem and its place under `error.details.problems`.

**Lists** answer `{"items": [...], "next_cursor": null | "..."}`. Send the cursor back with the same filters.

**Repeating a creation.** With an `Idempotency-Key` (kept for a day, for each token by itself) the same request is
answered the same again, with `Idempotent-Replayed: true`, and nothing is created twice; the key of a replayed creation
is null, because it is stored nowhere. A refused request is not kept, so it may be corrected under the same key.

**Lost updates.** Reading and writing answer an `ETag`; send it back as `If-Match`, and nothing is changed that somebody
else has changed since (412). Without If-Match the last writer wins.

**When it is in force.** A write is committed when it is answered. `heard_by` says how many gateway workers were told at
once; null means that Redis could not tell them, and they read the change from the database within 5 seconds.
"""


def _field(description: str, example: str, **schema: Any) -> dict[str, Any]:
    """A header field of an answer."""
    return {"description": description, "schema": {"type": "string", **schema}, "example": example}


REQUEST_ID: Final = {"X-Request-ID": _field("The request's name in the log.", "0b4b6f0e-93a4-4f3c-8f4e-3f6f0d7f1a55")}
ETAG: Final = {"ETag": _field("The state's tag, for If-Match.", '"3"')}
CREATION: Final = {
    "Location": _field("Where the new thing is.", "/v1/keys/5b1e6c1e-7d0a-4c57-9a39-2f4c0a3b9f10"),
    "Idempotent-Replayed": _field("Stands on an answer that is given once more.", "true", enum=["true"]),
}
ID: Final = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "format": "uuid"},
    "example": "00000000-0000-0000-0000-000000000002",
}
IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "description": "Change it only if this is still its ETag; `*` for any state.",
    "schema": {"type": "string", "pattern": r'^(\*|"[0-9a-f]{1,20}")$'},
    "example": '"3"',
}
IF_NONE_MATCH: Final = {
    "name": "If-None-Match",
    "in": "header",
    "description": "Answer 304 if this is still its ETag.",
    "schema": {"type": "string"},
    "example": '"3"',
}
IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Any text that is new for a new request, such as a UUID; visible ASCII.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    "example": "4f1c7a52-0d5e-4a3f-9d0e-b2f1f6a3c111",
}


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The whole document, as JSON values."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    shapes = {shape for each in endpoints for shape in (each.answer, each.body) if shape is not None}
    return {
        "openapi": "3.0.3",
        "info": {"title": "Gateway admin API", "version": VERSION, "description": INTRODUCTION.strip()},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas([FailureAnswer, *sorted(shapes, key=lambda shape: shape.__name__)]),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    summary, _, more = endpoint.description.partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": summary.rstrip(".:"),
        "description": " ".join(more.split()) or summary,
        "tags": [endpoint.name.partition(".")[0]],
        "security": [{"token": []}] if endpoint.role else [],
        "parameters": _parameters(endpoint),
        "responses": {str(endpoint.status): _success(endpoint), **_refusals(endpoint)},
    }
    if endpoint.role:
        operation["description"] += f"\n\nFor the role `{endpoint.role}` and above."
    if endpoint.body is not None:
        content = {JSON: {"schema": {"$ref": REFERENCE.format(model=endpoint.body.__name__)}}}
        operation["requestBody"] = {"required": not endpoint.body_is_optional, "content": content}
    return operation


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [ID] if endpoint.has_id else []
    if endpoint.query is not None:
        found += _query(endpoint.query)
    if endpoint.answers_unchanged:
        found.append(IF_NONE_MATCH)
    if endpoint.takes_precondition:
        found.append(IF_MATCH)
    if endpoint.is_repeatable:
        found.append(IDEMPOTENCY_KEY)
    return found


def _query(shape: type[BaseModel]) -> list[dict[str, Any]]:
    whole = schemas([shape])[shape.__name__]
    return [
        # Absent is the only way to say nothing: an empty value is a value.
        {
            "name": name,
            "in": "query",
            "schema": {key: value for key, value in schema.items() if key != "nullable"},
            "example": whole["example"][name],
        }
        for name, schema in whole["properties"].items()
    ]


def _success(endpoint: Endpoint) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string" if endpoint.media != JSON else "object"}
    if endpoint.answer is not None:
        schema = {"$ref": REFERENCE.format(model=endpoint.answer.__name__)}
    headers = {**REQUEST_ID, **(ETAG if endpoint.tagged else {}), **(CREATION if endpoint.is_repeatable else {})}
    words = "Created" if endpoint.status == 201 else "Done" if endpoint.method != "GET" else "Found"
    return {"description": words, "headers": headers, "content": {endpoint.media: {"schema": schema}}}


def _refusals(endpoint: Endpoint) -> dict[str, Any]:
    found: dict[str, Any] = {str(each.status): _refusal(each) for each in failures(endpoint)}
    if endpoint.answers_unchanged:
        found["304"] = {"description": "The reader has this state already.", "headers": {**REQUEST_ID, **ETAG}}
    if endpoint.name == "health.ready":
        found["503"] = {**_success(endpoint), "description": "Not ready: send no requests."}
    return found


def _refusal(failure: Failure) -> dict[str, Any]:
    fields = {name: _field(words, failure.sent[name]) for name, words in failure.fields.items()}
    schema = {"$ref": REFERENCE.format(model=FailureAnswer.__name__)}
    content = {JSON: {"schema": schema, "example": failure.example}}
    return {"description": failure.reason, "headers": {**REQUEST_ID, **fields}, "content": content}
