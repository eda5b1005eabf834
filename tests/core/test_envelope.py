"""The one shape of every error."""

from __future__ import annotations

import inspect
import json

import pytest

from app.core import errors
from app.core.envelope import render, rfc3339
from app.core.errors import (
    GatewayError,
    InternalError,
    RateLimited,
    ServiceNotFound,
    TooManyFailedKeys,
    Unauthenticated,
)

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, GatewayError)]
NEEDS: dict[type[GatewayError], GatewayError] = {
    ServiceNotFound: ServiceNotFound("x"),
    TooManyFailedKeys: TooManyFailedKeys(1),
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_the_contracts_shape(kind: type[GatewayError]) -> None:
    """code is the status, message its public text, the times RFC 3339 with Z, the id the request's; nothing else."""
    error = NEEDS[kind] if kind in NEEDS else kind()
    body, fields = render(error, "r-1", 1_700_000_000.9)
    assert json.loads(body) == {
        "error": {"code": error.status, "message": error.message},
        "timestamp": "2023-11-14T22:13:20Z",
        "request_id": "r-1",
    }
    assert fields == error.headers
    assert 400 <= error.status <= 599


def test_details_and_the_deciding_clock_are_kept() -> None:
    """A 429's details stand inside `error`, and its timestamp is the clock's that decided."""
    error = RateLimited("m")
    error.details, error.decided_at = {"retry_after": 45}, 60
    body = json.loads(render(error, "r", 1e9)[0])
    assert body["error"]["details"] == {"retry_after": 45}
    assert body["timestamp"] == "1970-01-01T00:01:00Z"


def test_refusals_say_how_to_do_better() -> None:
    """Both 401s name the scheme, and an internal error says nothing about us."""
    for kind in Unauthenticated.__subclasses__():
        assert ("WWW-Authenticate", "Bearer") in kind().headers
    assert InternalError().message == "internal server error"


@pytest.mark.parametrize(("seconds", "text"), [(0, "1970-01-01T00:00:00Z"), (951_782_399.99, "2000-02-28T23:59:59Z")])
def test_times_are_whole_seconds_in_utc(seconds: float, text: str) -> None:
    """Fractions are cut, never rounded up: a time that is told has come."""
    assert rfc3339(seconds) == text
