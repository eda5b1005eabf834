"""The one renderer: turns a GatewayError into the answer that clients parse (contract section 3). Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from app.core.errors import GatewayError, Headers

JSON: str = "application/json"


def rfc3339(unix_seconds: float) -> str:
    """Whole seconds, UTC, with `Z` (RFC 3339 section 5.6)."""
    return datetime.fromtimestamp(int(unix_seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def render(error: GatewayError, request_id: str, now: float) -> tuple[bytes, Headers]:
    """Body and header fields of the answer to `error`. `now`: unix seconds, unless the error brings its own clock's."""
    body: dict[str, Any] = {"code": error.status, "message": error.message}
    if error.details is not None:
        body["details"] = error.details
    at = error.decided_at if error.decided_at is not None else now
    envelope = {"error": body, "timestamp": rfc3339(at), "request_id": request_id}
    return orjson.dumps(envelope), error.headers
