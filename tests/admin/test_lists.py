"""Lists: pages that miss nothing and repeat nothing, and every filter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.admin.conftest import TOKENS, Admin, problems
from tests.tenants import sql


def everything(admin: Admin, target: str, items: int = 2) -> list[dict[str, Any]]:
    """All items of a list, page by page."""
    return [item for page in pages(admin, target, items) for item in page]


def pages(admin: Admin, target: str, items: int) -> Iterator[list[dict[str, Any]]]:
    cursor = ""
    while True:
        mark = "&" if "?" in target else "?"
        answer = admin.call("GET", f"{target}{mark}limit={items}{cursor}", role="owner")
        assert answer.status_code == 200, answer.text
        assert set(answer.json()) == {"items", "next_cursor"}
        yield answer.json()["items"]
        if answer.json()["next_cursor"] is None:
            return
        cursor = f"&cursor={answer.json()['next_cursor']}"


def ids(items: list[dict[str, Any]]) -> list[Any]:
    return [item["id"] for item in items]


@pytest.fixture(scope="module")
def crowd(admin: Admin) -> list[str]:
    """Seven organizations, the oldest first; three of them at the same instant."""
    made = [
        admin.organization(name=f"Crowd {number} 50%_off", tier=("basic", "premium")[number % 2], active=number < 5)[
            "id"
        ]
        for number in range(7)
    ]
    sql(
        admin.database_url,
        "UPDATE organizations SET created_at = '2026-01-01' WHERE id = ANY(%s::uuid[])",
        made[:3],
    )
    return sorted(made[:3]) + made[3:]


@pytest.mark.parametrize("items", [1, 2, 3, 7, 200])
def test_pages_have_every_item_once(admin: Admin, crowd: list[str], items: int) -> None:
    """Whatever the page's size, all items come once and in order, those of one instant too."""
    assert ids(everything(admin, "/v1/organizations?name=Crowd", items)) == crowd


def test_what_comes_meanwhile_hides_nothing(admin: Admin) -> None:
    """An organization that is added between two pages neither repeats nor hides one that was there."""
    made = [admin.organization(name="Meanwhile")["id"] for _ in range(3)]
    walk = pages(admin, "/v1/organizations?name=meanwhile", 2)
    first = ids(next(walk))
    late = admin.organization(name="Meanwhile")["id"]
    sql(admin.database_url, "UPDATE organizations SET created_at = '2025-01-01' WHERE id = %s", late)
    assert first + ids([item for page in walk for item in page]) == made


def test_filters_of_organizations(admin: Admin, crowd: list[str]) -> None:
    """Tier, activity and a part of the name narrow the list together; `%` and `_` are characters like any others."""

    def found(query: str) -> set[Any]:
        return {item["name"] for item in everything(admin, f"/v1/organizations?{query}", 50)}

    assert found("name=CROWD&tier=premium") == {f"Crowd {number} 50%_off" for number in (1, 3, 5)}
    assert found("name=crowd&active=false") == {f"Crowd {number} 50%_off" for number in (5, 6)}
    assert found("name=crowd&active=true&tier=basic") == {f"Crowd {number} 50%_off" for number in (0, 2, 4)}
    assert len(found("name=50%25_")) == 7
    assert found("name=0_5") == found("name=%25%25") == found("name=%5C") == set()


def test_names_are_searched_by_the_databases_letters(admin: Admin) -> None:
    """A name is found by itself and in small letters, also where Python and PostgreSQL disagree about small letters."""
    admin.organization(name="İZMİR GRÖSSE")
    for part in ("İZMİR", "grösse", "GRÖSSE"):
        items = admin.http.get(
            "/v1/organizations", params={"name": part}, headers={"Authorization": f"Bearer {TOKENS['viewer']}"}
        ).json()["items"]
        assert [item["name"] for item in items] == ["İZMİR GRÖSSE"], part


@pytest.fixture(scope="module")
def ring(admin: Admin) -> dict[str, str]:
    """One key of each kind, of one organization: ids by kind."""
    unit_id = admin.organization(name="Ring")["id"]
    kinds = {
        "active": "",
        "expiring": "expires_at = now() + interval '3 days'",
        "later": "expires_at = now() + interval '30 days'",
        "expired": "expires_at = now() - interval '1 hour'",
        "revoked": "revoked_at = now(), revoked_reason = 'r', expires_at = now() + interval '1 day'",
        "idle": "created_at = '2025-01-01', last_used_at = '2025-06-01'",
        "unused": "created_at = '2025-02-01'",
    }
    made = {}
    for kind, change in kinds.items():
        made[kind] = admin.key(unit_id, name=kind, env="live" if kind == "active" else "test")["id"]
        if change:
            sql(admin.database_url, f"UPDATE api_keys SET {change} WHERE id = '{made[kind]}'")  # noqa: S608
    return made | {"organization": unit_id}


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ("", {"active", "expiring", "later", "expired", "revoked", "idle", "unused"}),
        ("&status=active", {"active", "expiring", "later", "idle", "unused"}),
        ("&status=expiring", {"expiring"}),
        ("&status=expiring&expiring_within_days=31", {"expiring", "later"}),
        ("&status=expiring&expiring_within_days=1", set()),
        ("&status=expired", {"expired"}),
        ("&status=revoked", {"revoked"}),
        ("&prefix=sk_live_", {"active"}),
        ("&prefix=sk_test", {"expiring", "later", "expired", "revoked", "idle", "unused"}),
        ("&unused_since=2026-01-01T00:00:00Z", {"idle", "unused"}),
        ("&unused_since=2025-03-01T00:00:00Z", {"unused"}),
        ("&status=active&prefix=sk_test_&unused_since=2025-03-01T00:00:00Z", {"unused"}),
    ],
)
def test_filters_of_keys(admin: Admin, ring: dict[str, str], query: str, kinds: set[str]) -> None:
    """Organization, status, prefix and idleness narrow the list together, over pages of two."""
    found = everything(admin, f"/v1/keys?organization_id={ring['organization']}{query}")
    assert {item["name"] for item in found} == kinds
    assert len(found) == len(kinds)


def test_a_whole_prefix_finds_the_key(admin: Admin, ring: dict[str, str]) -> None:
    """The 12 characters that lists show of a key lead to it."""
    prefix = admin.call("GET", f"/v1/keys/{ring['active']}").json()["prefix"]
    assert ring["active"] in ids(everything(admin, f"/v1/keys?prefix={prefix}"))


@pytest.mark.parametrize(
    ("target", "places"),
    [
        ("/v1/organizations?tier=gold&active=yes&limit=0", {"tier", "active", "limit"}),
        ("/v1/organizations?limit=201&nmae=x", {"limit", "nmae"}),
        ("/v1/organizations?limit=five&name=", {"limit", "name"}),
        ("/v1/organizations?limit=1&limit=2", {"limit"}),
        ("/v1/organizations?name=%00", {"name"}),
        ("/v1/organizations?limit=+5", {"limit"}),
        (
            "/v1/keys?organization_id=acme&status=gone&unused_since=yesterday",
            {"organization_id", "status", "unused_since"},
        ),
        ("/v1/keys?expiring_within_days=0", {"expiring_within_days"}),
        ("/v1/keys?prefix=sk_live_0123456789", {"prefix"}),
        (
            "/v1/audit?who=%0A&action=revoke&since=now&until=1&subject_id=x",
            {"who", "action", "since", "until", "subject_id"},
        ),
    ],
)
def test_queries_that_mean_nothing(admin: Admin, target: str, places: set[str]) -> None:
    """Unknown, repeated, empty and impossible query fields are all told with their places."""
    assert set(problems(admin.call("GET", target))) == {("query", name) for name in places}


def test_a_query_that_is_no_text(admin: Admin) -> None:
    """Bytes that are no UTF-8 are refused, and so are endless queries."""
    assert set(problems(admin.call("GET", "/v1/keys?prefix=%FF"))) == {("query",)}
    assert set(problems(admin.call("GET", "/v1/keys?" + "&".join(f"a{n}=1" for n in range(60))))) == {("query",)}


def test_endpoints_without_a_query_take_none(admin: Admin) -> None:
    """A query where none is expected is a mistake that is told, not ignored."""
    path = f"/v1/organizations/{admin.organization()['id']}"
    assert set(problems(admin.call("GET", f"{path}?fields=name"))) == {("query", "fields")}


def test_a_cursor_goes_with_its_list(admin: Admin, crowd: list[str]) -> None:
    """A cursor under other filters, of another list, or made up is refused; another page size is fine."""
    cursor = admin.call("GET", "/v1/organizations?name=crowd&limit=1").json()["next_cursor"]
    assert admin.call("GET", f"/v1/organizations?name=crowd&limit=7&cursor={cursor}").status_code == 200
    for target in (
        f"/v1/organizations?cursor={cursor}",
        f"/v1/organizations?name=crow&cursor={cursor}",
        f"/v1/keys?cursor={cursor}",
        f"/v1/organizations?name=crowd&cursor={cursor[:-2]}",
        "/v1/organizations?cursor=",
        "/v1/organizations?cursor=e30",
        "/v1/organizations?cursor=%C3%A4",
        "/v1/organizations?cursor=WyIxIiwiMiIsIjMiXQ",
        f"/v1/organizations?cursor={'A' * 513}",
    ):
        assert set(problems(admin.call("GET", target))) == {("query", "cursor")}, target
