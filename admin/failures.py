"""Which errors an endpoint can answer, by what it takes: the part of the document that people forget to keep true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from admin import errors
from admin.endpoint import Endpoint
from admin.shapes.failure import example
from app.core.errors import BodyTooLarge, InternalError, MalformedRequest, MissingCredential


@dataclass(frozen=True, slots=True)
class Failure:
    """`fields`: header names, and what they say; `sent` has their values in the example."""

    status: int
    reason: str
    example: dict[str, Any]
    fields: Mapping[str, str] = field(default_factory=dict)
    sent: Mapping[str, str] = field(default_factory=dict)


def failures(endpoint: Endpoint) -> Iterator[Failure]:
    """In the order of their status."""
    if endpoint.role is None:
        return
    yield _failure(MalformedRequest("the body is no JSON"), "Malformed: no HTTP, or a body that is no JSON.")
    yield _failure(MissingCredential(), "No token, or a wrong one.", {"WWW-Authenticate": "The scheme that would do."})
    if endpoint.role != "viewer":
        yield _failure(errors.RoleTooLow("viewer", endpoint.role), f"The token's role is below `{endpoint.role}`.")
    if endpoint.names_a_thing:
        yield _failure(errors.UnknownThing("key 5b1e6c1e-7d0a-4c57-9a39-2f4c0a3b9f10 not found"), "No such thing.")
    yield from _conflicts(endpoint)
    yield from _of_the_request(endpoint)
    yield _failure(errors.TooManyAttempts(7), "Too many wrong tokens from this address.", {"Retry-After": "Seconds."})
    yield _failure(InternalError(), "Ours; the log has it under the request id.")
    reason = "The database is away, or Redis." if endpoint.needs_redis else "The database is away."
    yield _failure(errors.DatabaseUnavailable(), reason, {"Retry-After": "Seconds."})


def _conflicts(endpoint: Endpoint) -> Iterator[Failure]:
    repeated = "The Idempotency-Key belongs to another request, or its request is still under way."
    reasons = [reason for reason in (endpoint.conflict, repeated if endpoint.is_repeatable else "") if reason]
    if reasons:
        conflict = errors.Conflict("the Idempotency-Key was used for another request")
        yield _failure(conflict if endpoint.is_repeatable else errors.Conflict("it is revoked"), " ".join(reasons))
    if endpoint.takes_precondition:
        yield _failure(
            errors.PreconditionFailed("5b1e… was changed since it was read"), "If-Match names another state."
        )


def _of_the_request(endpoint: Endpoint) -> Iterator[Failure]:
    if endpoint.body is not None:
        yield _failure(BodyTooLarge(), "The body is larger than 64 KiB.")
        yield _failure(errors.UnsupportedMediaType(), "The body is not sent as JSON.")
    where = "body" if endpoint.body is not None else "query"
    problem = errors.Invalid([errors.Problem((where, "nmae"), "is unknown here")])
    yield _failure(problem, "Unknown fields, wrong types, impossible values: all of them, with their places.")


def _failure(error: Any, reason: str, fields: Mapping[str, str] | None = None) -> Failure:
    shown = example(error.status, error.message, **(error.details or {}))
    return Failure(error.status, reason, shown, fields or {}, dict(error.headers))
