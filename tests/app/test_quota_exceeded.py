"""The 429 as clients may ask for it: the contract's shape, or problem details (limits.md section 6, RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backend import Backend
from tests.gateway import Gateway, Reply

PROBLEM = "application/problem+json"
TRIES_MAX = 5


@pytest.fixture(scope="module")
def gateway(shared_backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A worker whose share of the limits is one request a minute."""
    folder: Path = tmp_path_factory.mktemp("gateway")
    with Gateway(folder, {"BACKEND_URLS": f"api={shared_backend.url}", "RATE_LIMIT_NODES": "10000"}) as running:
        yield running


def refusal(gateway: Gateway, accept: str) -> Reply:
    """A 429; a minute that ends meanwhile lets another request through."""
    replies = (gateway.get("/x", accept=accept) for _ in range(TRIES_MAX))
    return next(reply for reply in replies if reply.status == 429)


@pytest.mark.parametrize("accept", [PROBLEM, f"application/json, {PROBLEM.upper()};q=0.5"])
def test_problem_details_for_who_names_them(accept: str, gateway: Gateway, backend: Backend) -> None:
    """Type, violated policies and the members of RFC 9457 come before the contract's own, with the same headers."""
    reply = refusal(gateway, accept)
    assert reply["Content-Type"] == PROBLEM
    body = reply.json()
    assert list(body) == ["type", "title", "status", "violated-policies", "error", "timestamp", "request_id"]
    assert body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert body["title"] == body["error"]["message"] == "Rate limit exceeded: minute limit reached"
    assert (body["status"], body["violated-policies"], body["request_id"]) == (429, ["minute"], reply["X-Request-ID"])
    assert reply["Retry-After"] == str(body["error"]["details"]["retry_after"])
    assert reply["X-RateLimit-Remaining-Minute"] == "0"


@pytest.mark.parametrize("accept", ["*/*", "application/*", f"{PROBLEM}; q=0.000", f"x-{PROBLEM}", ",;"])
def test_the_contracts_shape_for_everybody_else(accept: str, gateway: Gateway, backend: Backend) -> None:
    """Wildcards do not ask for problem details, nor does a weight of nothing."""
    reply = refusal(gateway, accept)
    assert reply["Content-Type"] == "application/json"
    assert list(reply.json()) == ["error", "timestamp", "request_id"]
