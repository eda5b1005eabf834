"""API keys over the admin API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.keys.credential import digest, is_well_formed
from tests.admin.conftest import NOWHERE, Admin, problems
from tests.tenants import sql

FIELDS = {
    *("id", "organization_id", "name", "env", "prefix", "status", "scopes", "created_at", "created_by"),
    *("last_used_at", "expires_at", "revoked_at", "revoked_reason", "replaced_by"),
}
FUTURE = "2031-05-06T07:08:09Z"


def test_a_key_is_shown_once(admin: Admin) -> None:
    """The creation answers the key; no other answer, list, audit line or log line has it, nor its digest."""
    made = admin.key(env="live", name="billing", expires_at="2031-05-06T09:08:09+02:00", scopes=["read", "read", "a:b"])
    assert set(made) == FIELDS | {"api_key", "heard_by"}
    assert is_well_formed(made["api_key"].encode())
    assert made["prefix"] == made["api_key"][:12]
    assert (made["env"], made["expires_at"], made["scopes"]) == ("live", FUTURE, ["read", "a:b"])
    assert (made["created_by"], made["status"]) == ("owner-1", "active")
    read = admin.call("GET", f"/v1/keys/{made['id']}", role="viewer")
    assert set(read.json()) == FIELDS
    listed = admin.call("GET", f"/v1/keys?organization_id={made['organization_id']}")
    everything = f"{read.text} {listed.text} {admin.call('GET', '/v1/audit').text} {admin.output}"
    assert made["api_key"] not in everything
    assert digest(made["api_key"]).hex() not in everything
    stored = sql(admin.database_url, "SELECT key_digest FROM api_keys WHERE id = %s", made["id"])
    assert stored == [(digest(made["api_key"]).hex(),)]


def test_defaults_of_a_key(admin: Admin) -> None:
    """Without more than organization and name it is a test key without end and scopes."""
    made = admin.key()
    assert (made["env"], made["expires_at"], made["scopes"]) == ("test", None, [])


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ({"name": ""}, {("body", "name")}),
        ({"env": "prod", "name": 1}, {("body", "env"), ("body", "name")}),
        ({"expires_at": "2031-05-06"}, {("body", "expires_at")}),
        ({"expires_at": "2031-05-06T07:08:09"}, {("body", "expires_at")}),
        ({"expires_at": "2031-13-06T07:08:09Z"}, {("body", "expires_at")}),
        ({"expires_at": 1_900_000_000}, {("body", "expires_at")}),
        ({"expires_at": "2020-01-01T00:00:00Z"}, {("body", "expires_at")}),
        ({"scopes": ["ok", "not ok", 5]}, {("body", "scopes", 1), ("body", "scopes", 2)}),
        ({"scopes": [str(number) for number in range(33)]}, {("body", "scopes")}),
        ({"organization_id": "acme", "api_key": "mine"}, {("body", "organization_id"), ("body", "api_key")}),
    ],
)
def test_keys_that_cannot_be(admin: Admin, values: dict[str, Any], places: set[tuple[Any, ...]]) -> None:
    """Every problem of a key to create is told with its place, and no key is made."""
    body = {"organization_id": admin.organization()["id"], "name": "odd"} | values
    assert set(problems(admin.call("POST", "/v1/keys", body))) == places
    assert sql(admin.database_url, "SELECT count(*) FROM api_keys WHERE name = 'odd'") == [(0,)]


def test_no_key_without_an_active_organization(admin: Admin) -> None:
    """An unknown organization is 404, an inactive one 409."""
    inactive = admin.organization(active=False)["id"]
    for unit_id, status in ((NOWHERE, 404), (inactive, 409)):
        answer = admin.call("POST", "/v1/keys", {"organization_id": unit_id, "name": "useless"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, status)


def test_a_key_is_changed(admin: Admin) -> None:
    """Name, expiry and scopes change together; a null expiry takes the end away; what is not said stays."""
    path = f"/v1/keys/{admin.key(expires_at=FUTURE, scopes=['a'])['id']}"
    first = admin.call("PATCH", path, {"name": "new", "scopes": ["b"]}, role="editor").json()
    assert (first["name"], first["scopes"], first["expires_at"]) == ("new", ["b"], FUTURE)
    second = admin.call("PATCH", path, {"expires_at": None, "scopes": []}).json()
    assert (second["name"], second["scopes"], second["expires_at"]) == ("new", [], None)
    latest = admin.audit(second["id"])[0]
    assert (latest["action"], latest["before"]["expires_at"], latest["after"]["expires_at"]) == (
        "key.update",
        FUTURE,
        None,
    )


def test_an_expired_key_lives_again_by_a_new_expiry(admin: Admin) -> None:
    """Only an expiry that lies ahead is taken, and it revives a key that had expired."""
    key_id = admin.key()["id"]
    sql(admin.database_url, "UPDATE api_keys SET expires_at = now() WHERE id = %s", key_id)
    assert admin.call("GET", f"/v1/keys/{key_id}").json()["status"] == "expired"
    past = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    assert problems(admin.call("PATCH", f"/v1/keys/{key_id}", {"expires_at": past})) == {
        ("body", "expires_at"): "the expiry lies in the past"
    }
    assert admin.call("PATCH", f"/v1/keys/{key_id}", {"expires_at": FUTURE}).json()["status"] == "active"


def test_a_key_is_revoked_for_a_reason(admin: Admin) -> None:
    """Revoking needs a reason and keeps it; a revoked key is neither revoked again, nor changed, nor rotated."""
    path = f"/v1/keys/{admin.key()['id']}"
    assert set(problems(admin.call("POST", f"{path}/revoke", {}))) == {("body", "reason")}
    revoked = admin.call("POST", f"{path}/revoke", {"reason": " leaked "}, role="editor")
    assert (revoked.status_code, revoked.json()["status"], revoked.json()["revoked_reason"]) == (
        200,
        "revoked",
        "leaked",
    )
    assert revoked.json()["revoked_at"].endswith("Z")
    for method, target, body in (
        ("POST", f"{path}/revoke", {"reason": "again"}),
        ("PATCH", path, {"name": "new"}),
        ("POST", f"{path}/rotate", {}),
    ):
        assert admin.call(method, target, body).status_code == 409


def test_rotation_keeps_what_the_key_was(admin: Admin) -> None:
    """The successor has organization, name, env, scopes and expiry; the old key's end and last use are told."""
    old = admin.key(env="live", name="billing", scopes=["a"], expires_at=FUTURE)
    sql(admin.database_url, "UPDATE api_keys SET last_used_at = '2026-01-02T03:04:05Z' WHERE id = %s", old["id"])
    answer = admin.call("POST", f"/v1/keys/{old['id']}/rotate", {"overlap_seconds": 3600}, role="editor")
    assert answer.status_code == 201
    new = answer.json()
    assert is_well_formed(new["api_key"].encode())
    assert new["api_key"] != old["api_key"]
    kept = ("organization_id", "name", "env", "scopes", "expires_at")
    assert [new[name] for name in kept] == [old[name] for name in kept]
    replaced = new["replaces"]
    assert (replaced["id"], replaced["replaced_by"]) == (old["id"], new["id"])
    assert replaced["last_used_at"] == "2026-01-02T03:04:05Z"
    end = datetime.fromisoformat(replaced["expires_at"])
    assert abs((end - datetime.now(UTC)).total_seconds() - 3600) < 60
    assert admin.call("POST", f"/v1/keys/{old['id']}/rotate", {}).status_code == 409


def test_rotation_without_a_word_overlaps_a_day(admin: Admin) -> None:
    """No body is a day of overlap; 0 ends the old key at once; a fraction, a text or a year and a day are refused."""
    for body, seconds in ((None, 86_400), ({"overlap_seconds": 0}, 0)):
        replaced = admin.made(admin.call("POST", f"/v1/keys/{admin.key()['id']}/rotate", body))["replaces"]
        end = datetime.fromisoformat(replaced["expires_at"])
        assert abs((end - datetime.now(UTC)).total_seconds() - seconds) < 60
        assert replaced["status"] == ("active" if seconds else "expired")
    path = f"/v1/keys/{admin.key()['id']}/rotate"
    for wrong in (-1, 1.5, "60", 366 * 86_400, None):
        assert set(problems(admin.call("POST", path, {"overlap_seconds": wrong}))) == {("body", "overlap_seconds")}


@pytest.mark.parametrize(
    ("method", "rest", "body"),
    [("GET", "", None), ("PATCH", "", {"name": "n"}), ("POST", "/revoke", {"reason": "r"}), ("POST", "/rotate", {})],
)
def test_keys_that_are_not_there(admin: Admin, method: str, rest: str, body: Any) -> None:
    """An unknown key is 404, an id that is none 422."""
    answer = admin.call(method, f"/v1/keys/{NOWHERE}{rest}", body)
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, f"key {NOWHERE} not found")
    assert ("path", "id") in problems(admin.call(method, f"/v1/keys/sk_live_0123{rest}", body))


def test_keys_and_limits_are_told_to_who_listens(admin: Admin) -> None:
    """`heard_by` counts the subscribers of the gateways' channel: nobody here, so 0 and not null."""
    assert admin.key()["heard_by"] == 0
