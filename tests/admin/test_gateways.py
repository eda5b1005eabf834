"""The live workers, invalidations, and buckets, with a gateway of two workers at work."""

from __future__ import annotations

from typing import Any

import pytest

from tests.admin.conftest import NOWHERE, Admin, problems
from tests.gateway import Gateway, until
from tests.tenants import sql

WORKERS = 2


@pytest.fixture(scope="module", autouse=True)
def ready(admin: Admin, gateway: Gateway) -> None:
    """No test begins before both workers have said that they live, and those of former gateways are forgotten."""
    until(lambda: pids(workers(admin)) == set(gateway.worker_pids), "these workers to be listed")
    assert len(gateway.worker_pids) == WORKERS


@pytest.fixture
def tenant(admin: Admin) -> dict[str, Any]:
    """A key whose organization may send 3 requests a minute and 2 that it saved."""
    key = admin.key()
    limits = {"per_minute": 3, "per_day": 100, "burst": 2}
    assert admin.call("PUT", f"/v1/organizations/{key['organization_id']}/limits", limits).status_code == 200
    return key


def workers(admin: Admin) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = admin.call("GET", "/v1/gateways", role="viewer").json()["items"]
    return items


def live(admin: Admin, organization_id: str) -> dict[str, Any]:
    answer = admin.call("GET", f"/v1/organizations/{organization_id}/limits/live", role="viewer")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def send(gateway: Gateway, key: dict[str, Any], count: int) -> list[int]:
    return [gateway.get("/api/x", key=key["api_key"]).status for _ in range(count)]


# --- the list of workers ---


def pids(items: list[dict[str, Any]]) -> set[int]:
    return {int(each["node"].rpartition(":")[2]) for each in items}


def test_every_worker_is_listed(admin: Admin, gateway: Gateway) -> None:
    """Each live worker is listed with node, version, start, keys and latest change; the list is one page."""
    until(lambda: pids(workers(admin)) == set(gateway.worker_pids), "these workers and no former ones")
    answer = admin.call("GET", "/v1/gateways").json()
    assert answer["next_cursor"] is None
    for each in answer["items"]:
        assert each.keys() == {"node", "version", "since", "keys_cached", "last_change_at"}
        assert each["since"].endswith("Z")
    assert answer["items"] == sorted(answer["items"], key=lambda each: str(each["node"]))


def test_the_list_is_up_to_date(admin: Admin, gateway: Gateway, tenant: dict[str, Any]) -> None:
    """Keys that a worker has learned and changes that it has applied show within seconds."""

    def count() -> int:
        return sum(each["keys_cached"] for each in workers(admin))

    before = count()
    for _ in range(5):  # what the workers have just forgotten of other tests' keys may be in the first count
        send(gateway, admin.key(), 1)
    until(lambda: count() > before, "more keys in memory")
    send(gateway, tenant, 1)
    until(lambda: all(each["last_change_at"] for each in workers(admin)), "every worker to have applied a change")


# --- invalidations ---


def test_an_invalidation_is_heard(admin: Admin, gateway: Gateway, tenant: dict[str, Any]) -> None:
    """Each kind of invalidation says how many workers heard it, and is in the audit log."""
    for body in ({"key_id": tenant["id"]}, {"organization_id": tenant["organization_id"]}, {"all": True}):
        answer = admin.call("POST", "/v1/cache/invalidate", body, role="editor")
        assert (answer.status_code, answer.json()) == (200, {"heard_by": WORKERS})
    line = admin.audit(tenant["id"])[0]
    assert (line["action"], line["who"], line["address"]) == ("cache.invalidate", "editor-1", "127.0.0.1")


def test_an_invalidation_makes_the_gateways_read_again(admin: Admin, gateway: Gateway, tenant: dict[str, Any]) -> None:
    """After an invalidation no worker holds the key as known, whatever it was held as before."""

    def held() -> set[str]:
        answers = admin.call("POST", "/v1/explain", {"key_id": tenant["id"]}).json()["workers"]["answers"]
        return {answer["held_as"] for answer in answers}

    for body in ({"key_id": tenant["id"]}, {"organization_id": tenant["organization_id"]}, {"all": True}):
        until(lambda: send(gateway, tenant, 1) and held() == {"cached"}, "both workers to hold the key")
        admin.call("POST", "/v1/cache/invalidate", body)
        until(lambda: "cached" not in held(), "no worker to rely on what it holds", 4.0)


@pytest.mark.parametrize("body", [{"key_id": NOWHERE}, {"organization_id": NOWHERE}])
def test_an_invalidation_of_nothing(admin: Admin, body: dict[str, Any]) -> None:
    """An id of nobody's is a 404: a mistake that should not look like success."""
    answer = admin.call("POST", "/v1/cache/invalidate", body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, 404)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, ("body",)),
        ({"key_id": NOWHERE, "all": True}, ("body",)),
        ({"all": False}, ("body", "all")),
        ({"all": "true"}, ("body", "all")),
        ({"key_id": "x"}, ("body", "key_id")),
        ({"key_id": None}, ("body", "key_id")),
        ({"everything": True}, ("body", "everything")),
    ],
)
def test_invalidations_name_exactly_one_thing(admin: Admin, body: dict[str, Any], place: tuple[str, ...]) -> None:
    """Nothing, two things, and values of a wrong kind are refused with their place."""
    assert place in problems(admin.call("POST", "/v1/cache/invalidate", body))


# --- buckets ---


def test_a_bucket_shows_what_the_gateways_counted(admin: Admin, gateway: Gateway, tenant: dict[str, Any]) -> None:
    """The live limits are the figures that the gateway announces, and looking at them counts as nothing."""
    organization = tenant["organization_id"]
    fresh = live(admin, organization)
    assert (fresh["minute_used"], fresh["burst_remaining"], fresh["refused_by"]) == (0, 2, None)
    reply = gateway.get("/api/x", key=tenant["api_key"])
    for _ in range(2):
        seen = live(admin, organization)
        if seen["reset_minute"] == reply["X-RateLimit-Reset-Minute"]:  # else a minute began in between
            assert seen["remaining_minute"] == int(reply["X-RateLimit-Remaining-Minute"])
        assert seen["daily_used"] == 1
        assert seen["reset_day"] == reply["X-RateLimit-Reset-Day"]
    assert (seen["per_minute"], seen["per_day"], seen["burst"]) == (3, 100, 2)


def test_a_reset_gives_the_bucket_back_full(admin: Admin, gateway: Gateway, tenant: dict[str, Any]) -> None:
    """An organization that was refused is let in again at once, by every worker, with limit and burst."""
    organization = tenant["organization_id"]
    until(lambda: send(gateway, tenant, 12)[-6:] == [429] * 6, "a drained bucket")
    answer = admin.call("POST", f"/v1/organizations/{organization}/limits/reset")
    assert answer.status_code == 200
    full = answer.json()
    assert (full["minute_used"], full["daily_used"], full["remaining_minute"]) == (0, 0, 3)
    assert (full["burst_remaining"], full["heard_by"]) == (2, WORKERS)
    assert send(gateway, tenant, 5) == [200] * 5
    line = admin.audit(organization)[0]
    assert (line["action"], line["who"]) == ("organization.reset_limits", "owner-1")
    assert line["before"]["daily_used"] >= 5
    assert line["after"] == {"minute_used": 0, "daily_used": 0}


@pytest.mark.parametrize(("method", "end"), [("GET", "live"), ("POST", "reset")])
def test_a_bucket_of_nobody(admin: Admin, method: str, end: str) -> None:
    """An organization that does not exist has no bucket: 404, and 422 for what is no id at all."""
    assert admin.call(method, f"/v1/organizations/{NOWHERE}/limits/{end}").status_code == 404
    assert ("path", "id") in problems(admin.call(method, f"/v1/organizations/x/limits/{end}"))


# --- who may ---


@pytest.mark.parametrize(
    ("method", "path", "body", "least"),
    [
        ("GET", "/v1/gateways", None, "viewer"),
        ("POST", "/v1/cache/invalidate", {"all": True}, "editor"),
        ("GET", f"/v1/organizations/{NOWHERE}/limits/live", None, "viewer"),
        ("POST", f"/v1/organizations/{NOWHERE}/limits/reset", None, "owner"),
        ("POST", "/v1/explain", {"key_id": NOWHERE}, "viewer"),
    ],
)
def test_roles(admin: Admin, method: str, path: str, body: Any, least: str) -> None:
    """Each endpoint is open to its role and those above, closed to those below, and to nobody without a token."""
    roles = ("viewer", "editor", "owner")
    for role in roles:
        status = admin.call(method, path, body, role=role).status_code
        assert (status == 403) == (roles.index(role) < roles.index(least)), role
    assert admin.call(method, path, body, role=None).status_code == 401


def test_the_audit_log_holds_no_key(admin: Admin, tenant: dict[str, Any]) -> None:
    """What was asked and invalidated left no key and no digest in the audit log."""
    admin.call("POST", "/v1/explain", {"api_key": tenant["api_key"]})
    text = str(sql(admin.database_url, "SELECT before, after FROM audit_log"))
    assert tenant["api_key"] not in text
