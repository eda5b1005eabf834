"""Idempotency-Key: the same creation asked for twice is one creation."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest

from app.core.data.database import STATEMENT_SECONDS
from tests.admin.conftest import Admin, problems
from tests.gateway import until
from tests.tenants import sql

BODY = {"name": "Once", "tier": "basic"}


def create(
    admin: Admin, key: str, path: str = "/v1/organizations", body: Any = BODY, role: str = "owner"
) -> httpx.Response:
    return admin.call("POST", path, body, role=role, Idempotency_Key=key)


def test_the_same_again_is_the_same_answer(admin: Admin) -> None:
    """Same key and body: the same status, body, Location and ETag, said to be a replay, and one organization."""
    first, second = create(admin, "same"), create(admin, "same")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    for name in ("Location", "ETag"):
        assert first.headers[name] == second.headers[name]
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert len(admin.audit(first.json()["id"])) == 1


def test_a_replayed_key_is_not_told_again(admin: Admin) -> None:
    """A replayed creation or rotation of a key answers all but the key, which is stored nowhere."""
    body = {"organization_id": admin.organization()["id"], "name": "once"}
    path, rest = "/v1/keys", body
    for _ in range(2):
        first, second = create(admin, path, path, rest), create(admin, path, path, rest)
        assert first.status_code == second.status_code == 201
        assert second.json() == first.json() | {"api_key": None}
        [(kept,)] = sql(admin.database_url, "SELECT body FROM idempotency_keys WHERE key = %s", path)
        assert first.json()["api_key"] not in kept
        path, rest = f"/v1/keys/{first.json()['id']}/rotate", {"overlap_seconds": 60}
    [(made,)] = sql(
        admin.database_url, "SELECT count(*) FROM api_keys WHERE organization_id = %s", body["organization_id"]
    )
    assert made == 2


def test_another_request_under_the_same_key(admin: Admin) -> None:
    """Another body, another endpoint or another thing under a used key is 409, and nothing is created."""
    key_id, other_id = admin.key()["id"], admin.key()["id"]
    assert create(admin, "used").status_code == 201
    assert create(admin, "used", body=BODY | {"name": "Twice"}).status_code == 409
    assert create(admin, "used", f"/v1/keys/{key_id}/rotate", {}).status_code == 409
    assert create(admin, "rotation", f"/v1/keys/{key_id}/rotate", {}).status_code == 201
    refused = create(admin, "rotation", f"/v1/keys/{other_id}/rotate", {})
    assert refused.json()["error"]["message"] == "the Idempotency-Key was used for another request"
    assert admin.call("GET", f"/v1/keys/{other_id}").json()["replaced_by"] is None


def test_keys_belong_to_who_sent_them(admin: Admin) -> None:
    """Two callers may choose the same key without knowing of each other."""
    first, second = create(admin, "shared", role="owner"), create(admin, "shared", role="editor")
    assert first.json()["id"] != second.json()["id"]


def test_the_same_said_otherwise_is_the_same(admin: Admin) -> None:
    """Spaces and defaults spelled out do not make it another request."""
    first = create(admin, "spelled", body={"tier": "basic", "name": "Once"})
    second = create(admin, "spelled", body={"name": "Once", "tier": "basic", "active": True})
    assert first.json() == second.json()


def test_a_refused_request_keeps_no_key(admin: Admin) -> None:
    """After a refusal the corrected request goes through under the same key."""
    unit_id = admin.organization(active=False)["id"]
    body = {"organization_id": unit_id, "name": "later"}
    assert create(admin, "refused", "/v1/keys", body).status_code == 409
    assert create(admin, "refused", "/v1/keys", {**body, "env": "x"}).status_code == 422
    admin.call("PATCH", f"/v1/organizations/{unit_id}", {"active": True})
    answer = create(admin, "refused", "/v1/keys", body)
    assert (answer.status_code, "Idempotent-Replayed" in answer.headers) == (201, False)


def test_at_the_same_moment_there_is_one(admin: Admin) -> None:
    """Twelve at once make one key: each of the others waits and answers the same, or is told that it is under way."""
    body = {"organization_id": admin.organization()["id"], "name": "race"}
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: create(admin, "race", "/v1/keys", body), range(12)))
    statuses = {answer.status_code for answer in answers}
    assert statuses <= {201, 409}
    made = [answer.json() for answer in answers if answer.status_code == 201]
    assert len({each["id"] for each in made}) == 1
    assert len([each for each in made if each["api_key"] is not None]) == 1
    assert sql(admin.database_url, "SELECT count(*) FROM api_keys WHERE name = 'race'") == [(1,)]


def test_a_slow_first_request_is_waited_for(admin: Admin) -> None:
    """A first request under way for longer than one statement may take keeps the second waiting, and fails it not."""
    with psycopg.connect(admin.database_url) as first, ThreadPoolExecutor(1) as pool:
        first.execute(
            "INSERT INTO idempotency_keys (actor, key, fingerprint) VALUES ('owner-1', 'slow', %s)", ("0" * 64,)
        )
        began = time.monotonic()
        second = pool.submit(create, admin, "slow")
        until(lambda: second.done() or time.monotonic() - began > 2 * STATEMENT_SECONDS, "two statements' time")
        first.rollback()
        answer = second.result()
    assert (answer.status_code, "Idempotent-Replayed" in answer.headers) == (201, False)


def test_a_key_is_kept_for_a_day(admin: Admin) -> None:
    """A day later the key is new: another body is another creation."""
    assert create(admin, "old").status_code == 201
    sql(admin.database_url, "UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = 'old'")
    answer = create(admin, "old", body=BODY | {"name": "Anew"})
    assert (answer.status_code, answer.json()["name"]) == (201, "Anew")
    assert create(admin, "old", body=BODY | {"name": "Anew"}).headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize("key", ["", "a b", "k" * 256, "schlüssel"])
def test_keys_that_will_not_do(admin: Admin, key: str) -> None:
    """A key is 1 to 255 visible ASCII characters; anything else is a problem of the header."""
    request = admin.http.build_request("POST", "/v1/organizations", json=BODY)
    token = admin.call("GET", "/health").request.headers["Authorization"]
    request.headers = httpx.Headers(
        [*request.headers.raw, (b"Authorization", token.encode()), (b"Idempotency-Key", key.encode())]
    )
    assert set(problems(admin.http.send(request))) == {("header", "Idempotency-Key")}
