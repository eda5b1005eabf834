"""The one renderer: turns a GatewayError into the answer that clients parse (contract section 3). Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import orjson

from app.core.errors import GatewayError, Headers, RateLimited

JSON: str = "application/json"
PROBLEM: Final = "application/problem+json"
QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"


def rfc3339(unix_seconds: float) -> str:
    """Whole seconds, UTC, with `Z` (RFC 3339 section 5.6)."""
    return _rfc3339(int(unix_seconds))


@lru_cache(maxsize=256)  # of the ends of minutes and days, and of this second, many answers speak
def _rfc3339(unix_seconds: int) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def render(error: GatewayError, request_id: str, now: float) -> tuple[bytes, Headers]:
    """Body and header fields of the answer to `error`. `now`: unix seconds, unless the error brings its own clock's."""
    return orjson.dumps(_envelope(error, request_id, now)), error.headers


def render_problem(error: RateLimited, request_id: str, now: float) -> tuple[bytes, Headers]:
    """The same for who asks for PROBLEM: the members of RFC 9457 and of the IETF draft, then ours as extensions."""
    problem = {
        "type": QUOTA_EXCEEDED,
        "title": error.message,
        "status": error.status,
        "violated-policies": error.violated,
    }
    return orjson.dumps(problem | _envelope(error, request_id, now)), error.headers


def _envelope(error: GatewayError, request_id: str, now: float) -> dict[str, Any]:
    body: dict[str, Any] = {"code": error.status, "message": error.message}
    if error.details is not None:
        body["details"] = error.details
    at = error.decided_at if error.decided_at is not None else now
    return {"error": body, "timestamp": rfc3339(at), "request_id": request_id}
