"""ETag and If-Match: an update that was made over somebody else's is refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from admin.precondition import Precondition, is_unchanged
from tests.admin.conftest import Admin, problems
from tests.gateway import until
from tests.tenants import sql

LIMITS = {"per_minute": 5, "per_day": 50, "burst": 1}


def things(admin: Admin) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and change of everything that takes If-Match."""
    unit_id = admin.organization()["id"]
    organization = f"/v1/organizations/{unit_id}"
    key = f"/v1/keys/{admin.key()['id']}"
    return [
        ("PATCH", organization, {"name": "New"}),
        ("PUT", f"{organization}/limits", LIMITS),
        ("PATCH", key, {"name": "new"}),
    ]


def test_a_lost_update_is_refused(admin: Admin) -> None:
    """With the ETag that was read a change goes through once; the second one with it gets 412 and changes nothing."""
    for method, path, body in things(admin):
        tag = admin.call("GET", path).headers["ETag"]
        first = admin.call(method, path, body, If_Match=tag)
        assert first.status_code == 200
        assert first.headers["ETag"] == admin.call("GET", path).headers["ETag"] != tag
        changed = {name: 7 if isinstance(value, int) else "lost" for name, value in body.items()}
        lost = admin.call(method, path, changed, If_Match=tag)
        assert (lost.status_code, lost.json()["error"]["code"]) == (412, 412)
        assert admin.call("GET", path).headers["ETag"] == first.headers["ETag"]
        assert admin.call(method, path, changed, If_Match=f'"x", {first.headers["ETag"]}').status_code == 200
        assert admin.call(method, path, body, If_Match="*").status_code == 200
        assert admin.call(method, path, changed).status_code == 200


def test_limits_set_while_one_waits_count(admin: Admin) -> None:
    """A change of limits that had to wait for another one is judged by what that one left behind: 412."""
    path = f"/v1/organizations/{admin.organization()['id']}/limits"
    tag = admin.call("PUT", path, LIMITS).headers["ETag"]
    unit_id = path.split("/")[3]
    with psycopg.connect(admin.database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT FROM organizations WHERE id = %s FOR NO KEY UPDATE", (unit_id,))
        answer = pool.submit(admin.call, "PUT", path, {**LIMITS, "burst": 2}, If_Match=tag)
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        until(lambda: sql(admin.database_url, waiting), "the change to wait")
        other.execute("UPDATE organization_limits SET burst = 3 WHERE organization_id = %s", (unit_id,))
        other.commit()
        assert answer.result().status_code == 412
    assert admin.call("GET", path).json()["burst"] == 3


def test_verbs_honour_it_too(admin: Admin) -> None:
    """Revoking, rotating and returning to the plan's limits are not done to a state that was not meant."""
    made = admin.key()
    key, limits = f"/v1/keys/{made['id']}", f"/v1/organizations/{made['organization_id']}/limits"
    for method, path, body in (
        ("POST", f"{key}/revoke", {"reason": "r"}),
        ("POST", f"{key}/rotate", {}),
        ("DELETE", limits, None),
    ):
        assert admin.call(method, path, body, If_Match='"99"').status_code == 412
    tag = admin.call("GET", key).headers["ETag"]
    assert admin.call("POST", f"{key}/rotate", {}, If_Match=tag).status_code == 201


def test_weak_tags_match_nothing(admin: Admin) -> None:
    """RFC 9110 section 13.1.1: If-Match compares strongly."""
    path = f"/v1/organizations/{admin.organization()['id']}"
    assert admin.call("PATCH", path, {"name": "n"}, If_Match='W/"1"').status_code == 412


@pytest.mark.parametrize("tag", ["1", '"1', "", '"1" "2"'])
def test_malformed_tags(admin: Admin, tag: str) -> None:
    """Text that is no entity tag is a problem of the header: taken for no match it would look like a lost update."""
    path = f"/v1/organizations/{admin.organization()['id']}"
    assert set(problems(admin.call("PATCH", path, {"name": "n"}, If_Match=tag))) == {("header", "If-Match")}


def test_of_many_at_once_one_wins(admin: Admin) -> None:
    """Ten changes at the same moment with the same ETag: exactly one is made, the others get 412."""
    path = f"/v1/organizations/{admin.organization()['id']}"
    with ThreadPoolExecutor(10) as pool:
        answers = list(
            pool.map(lambda n: admin.call("PATCH", path, {"name": f"Winner {n}"}, If_Match='"1"'), range(10))
        )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 9
    [winner] = [answer for answer in answers if answer.status_code == 200]
    read = admin.call("GET", path)
    assert (read.json()["name"], read.headers["ETag"]) == (winner.json()["name"], '"2"')


def test_a_use_of_the_key_is_no_change(admin: Admin) -> None:
    """Gateways note the last use all the time; that does not make a reader's ETag stale."""
    path = f"/v1/keys/{admin.key()['id']}"
    tag = admin.call("GET", path).headers["ETag"]
    sql(admin.database_url, "UPDATE api_keys SET last_used_at = now() WHERE id = %s", path.rpartition("/")[2])
    assert admin.call("GET", path).json()["last_used_at"] is not None
    assert admin.call("PATCH", path, {"name": "n"}, If_Match=tag).status_code == 200


def test_limits_that_come_back_are_the_same(admin: Admin) -> None:
    """Own limits that were removed and set anew have the tag of their numbers, not a count that began anew."""
    path = f"/v1/organizations/{admin.organization()['id']}/limits"
    first = admin.call("PUT", path, LIMITS).headers["ETag"]
    admin.call("DELETE", path)
    other = admin.call("PUT", path, LIMITS | {"burst": 2}).headers["ETag"]
    assert other != first
    assert admin.call("PUT", path, LIMITS, If_Match=other).headers["ETag"] == first


def test_who_has_it_is_told_so(admin: Admin) -> None:
    """If-None-Match with the present ETag gets 304 without a body, with another one the whole answer."""
    path = f"/v1/organizations/{admin.organization()['id']}"
    for target in (path, f"{path}/limits"):
        tag = admin.call("GET", target).headers["ETag"]
        same = admin.call("GET", target, If_None_Match=f'"other", W/{tag}')
        assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", tag)
        assert admin.call("GET", target, If_None_Match='"other"').status_code == 200


@pytest.mark.parametrize(
    ("field", "tag", "admitted"),
    [
        ("*", '"1"', True),
        ('"1"', '"1"', True),
        (' "a" ,\t"1" ', '"1"', True),
        ('"a,b"', '"a,b"', True),
        ('W/"1"', '"1"', False),
        ('"2"', '"1"', False),
    ],
)
def test_lists_of_tags(field: str, tag: str, admitted: bool) -> None:
    """If-Match is `*` or a list of tags; commas inside a tag belong to it."""
    assert Precondition.parse(field).admits(tag) == admitted


def test_a_malformed_list_is_no_known_state() -> None:
    """If-None-Match that cannot be read means the whole answer."""
    assert not is_unchanged("1", '"1"')
    assert is_unchanged("*", '"1"')
