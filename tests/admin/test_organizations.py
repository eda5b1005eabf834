"""Organizations over the admin API, as people and services manage them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.admin.conftest import NOWHERE, Admin, problems
from tests.tenants import sql

FIELDS = {"id", "name", "tier", "active", "created_at", "updated_at"}


def test_an_organization_goes_through_its_life(admin: Admin) -> None:
    """Created, read, changed in several things at once; every change with its audit line and the caller's address."""
    made = admin.organization(name="  Acme Corporation ", tier="premium")
    assert set(made) == FIELDS | {"heard_by"}
    assert (made["name"], made["tier"], made["active"], made["heard_by"]) == ("Acme Corporation", "premium", True, 0)
    path = f"/v1/organizations/{made['id']}"
    changed = admin.call("PATCH", path, {"name": "Acme", "tier": "basic", "active": False}, role="editor")
    assert changed.status_code == 200
    assert (changed.json()["name"], changed.json()["tier"], changed.json()["active"]) == ("Acme", "basic", False)
    read = admin.call("GET", path, role="viewer")
    assert read.json() == {name: value for name, value in changed.json().items() if name != "heard_by"}
    assert set(read.json()) == FIELDS
    latest, first = admin.audit(made["id"])
    assert (first["action"], first["before"], first["after"]["name"]) == ("organization.create", None, made["name"])
    assert (latest["who"], latest["action"], latest["address"]) == ("editor-1", "organization.update", "127.0.0.1")
    assert (latest["before"]["tier"], latest["after"]["tier"]) == ("premium", "basic")


def test_creating_says_where_it_is(admin: Admin) -> None:
    """A creation answers 201 with Location and ETag, and both hold."""
    answer = admin.call("POST", "/v1/organizations", {"name": "Found", "tier": "basic", "active": False})
    read = admin.call("GET", answer.headers["Location"])
    assert (read.status_code, read.json()["active"]) == (200, False)
    assert read.headers["ETag"] == answer.headers["ETag"] == '"1"'


def test_what_is_not_said_stays(admin: Admin) -> None:
    """A PATCH touches only the fields that it names, and a change to the same counts as none."""
    made = admin.organization(name="Stays", tier="premium")
    path = f"/v1/organizations/{made['id']}"
    first = admin.call("PATCH", path, {"active": False})
    assert (first.json()["name"], first.json()["tier"]) == ("Stays", "premium")
    second = admin.call("PATCH", path, {"active": False})
    assert second.headers["ETag"] == first.headers["ETag"]
    actions = [line["action"] for line in admin.audit(made["id"])]
    assert actions == ["organization.deactivate", "organization.deactivate", "organization.create"]


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({}, {("body", "name"), ("body", "tier")}),
        ({"name": "", "tier": "gold"}, {("body", "name"), ("body", "tier")}),
        ({"name": 5, "tier": "basic", "active": 1}, {("body", "name"), ("body", "active")}),
        ({"name": "a\nb", "tier": "basic", "colour": "red"}, {("body", "name"), ("body", "colour")}),
        ({"name": "n" * 201, "tier": None}, {("body", "name"), ("body", "tier")}),
        ([], {("body",)}),
    ],
)
def test_every_problem_has_its_place(admin: Admin, body: Any, places: set[tuple[str, ...]]) -> None:
    """Unknown fields, wrong types and impossible values are all told at once, and nothing is created."""
    [(before,)] = sql(admin.database_url, "SELECT count(*) FROM organizations")
    assert set(problems(admin.call("POST", "/v1/organizations", body))) == places
    assert sql(admin.database_url, "SELECT count(*) FROM organizations") == [(before,)]


@pytest.mark.parametrize("body", [{}, {"name": None}, {"active": "no"}, {"tier": "gold"}, {"id": NOWHERE}])
def test_changes_that_cannot_be(admin: Admin, body: dict[str, Any]) -> None:
    """A PATCH of nothing, to nothing or to what is impossible is refused with 422, and leaves the version alone."""
    path = f"/v1/organizations/{admin.organization()['id']}"
    problems(admin.call("PATCH", path, body))
    assert admin.call("GET", path).headers["ETag"] == '"1"'


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("PATCH", {"active": True})])
def test_what_is_not_there(admin: Admin, method: str, body: Any) -> None:
    """An unknown id gets 404 in the envelope, an id that is none 422 with its place."""
    answer = admin.call(method, f"/v1/organizations/{NOWHERE}", body)
    assert answer.status_code == 404
    assert answer.json()["error"] == {"code": 404, "message": f"organization {NOWHERE} not found"}
    assert problems(admin.call(method, "/v1/organizations/acme", body)) == {("path", "id"): "is no UUID"}


# --- limits ---


def test_limits_are_the_plans_or_ones_own(admin: Admin) -> None:
    """PUT gives three numbers, DELETE the plan's again; each answers what is in force and has its audit line."""
    unit_id = admin.organization(tier="basic")["id"]
    path = f"/v1/organizations/{unit_id}/limits"
    plan = {"per_minute": 100, "per_day": 10_000, "burst": 50, "source": "plan"}
    assert admin.call("GET", path, role="viewer").json() == plan
    numbers = {"per_minute": 7, "per_day": 70, "burst": 0}
    put = admin.call("PUT", path, numbers, role="editor")
    assert (put.status_code, put.json()) == (200, {**numbers, "source": "own", "heard_by": 0})
    assert admin.call("GET", path).json() == {**numbers, "source": "own"}
    for _ in range(2):
        back = admin.call("DELETE", path, role="editor")
        assert (back.status_code, back.json()) == (200, {**plan, "heard_by": 0})
    assert [line["action"] for line in admin.audit(unit_id)][:3] == ["organization.set_limits"] * 3


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ({"per_minute": 0, "per_day": 0, "burst": -1}, {"per_minute", "per_day", "burst"}),
        ({"per_minute": 2**31, "per_day": 1.5, "burst": "1"}, {"per_minute", "per_day", "burst"}),
        ({"per_minute": True, "per_day": 1}, {"per_minute", "burst"}),
    ],
)
def test_impossible_limits(admin: Admin, body: dict[str, Any], places: set[str]) -> None:
    """Numbers out of range, of another type, or missing are refused, each with its place."""
    path = f"/v1/organizations/{admin.organization()['id']}/limits"
    assert set(problems(admin.call("PUT", path, body))) == {("body", name) for name in places}
    assert admin.call("GET", path).json()["source"] == "plan"


@pytest.mark.parametrize(
    ("method", "body"), [("GET", None), ("PUT", {"per_minute": 1, "per_day": 1, "burst": 1}), ("DELETE", None)]
)
def test_limits_of_nobody(admin: Admin, method: str, body: Any) -> None:
    """The limits of an unknown organization are 404."""
    assert admin.call(method, f"/v1/organizations/{NOWHERE}/limits", body).status_code == 404
