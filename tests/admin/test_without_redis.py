"""The admin app without Redis: what needs it says so, and everything else works and says what could not be told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.admin.conftest import Admin
from tests.gateway import until
from tools.embedded import RedisServer


@pytest.fixture(params=["killed", "not configured"])
def alone(request: pytest.FixtureRequest, tmp_path: Path, database_url: str, own_redis: RedisServer) -> Iterator[Admin]:
    """An admin app whose Redis died under it, or that was never given one."""
    if request.param == "not configured":
        with Admin(tmp_path, database_url) as admin:
            yield admin
        return
    with Admin(tmp_path, database_url, REDIS_URL=own_redis.url) as admin:
        until(lambda: admin.call("GET", "/v1/gateways").status_code == 200, "Redis to be reached")
        own_redis.kill()
        yield admin


def test_without_redis(alone: Admin) -> None:
    """Workers, buckets and resets are a 503 that says why; writes and explanations go on, null where Redis speaks."""
    key = alone.key()
    organization = key["organization_id"]
    assert key["heard_by"] is None
    for method, path in (
        ("GET", "/v1/gateways"),
        ("GET", f"/v1/organizations/{organization}/limits/live"),
        ("POST", f"/v1/organizations/{organization}/limits/reset"),
    ):
        answer = alone.call(method, path)
        assert answer.status_code == 503, path
        assert answer.json()["error"]["message"] == "Redis cannot be asked now"
        assert answer.headers["Retry-After"] == "1"
    assert [line["action"] for line in alone.audit(organization)] == ["organization.create"]
    explained = alone.call("POST", "/v1/explain", {"api_key": key["api_key"]}).json()
    assert explained["would_answer"]["status"] == 200
    assert (explained["bucket"], explained["workers"]) == (None, None)
    assert _invalidated(alone, {"key_id": key["id"]}) == {"heard_by": None}
    assert _invalidated(alone, {"all": True}) == {"heard_by": None}


def test_static_keys_cannot_be_ruled_out(alone: Admin) -> None:
    """A key that is not in the database may still be a gateway's static one, and no gateway can be asked."""
    answer = alone.call("POST", "/v1/explain", {"api_key": "sk_test_static"}).json()["would_answer"]
    assert (answer["status"], answer["message"]) == (403, "invalid API key")
    assert "cannot be told" in answer["why"]


def _invalidated(admin: Admin, body: dict[str, Any]) -> Any:
    answer = admin.call("POST", "/v1/cache/invalidate", body)
    assert answer.status_code == 200
    return answer.json()
