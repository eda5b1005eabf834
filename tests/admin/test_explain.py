"""What would the gateway answer, and why: compared with what the gateway does answer."""

from __future__ import annotations

import time
from typing import Any

import pytest

from app.core.keys.credential import mint
from tests.admin.conftest import NOWHERE, Admin, problems
from tests.gateway import STATIC_KEY, Gateway, until
from tests.tenants import sql


@pytest.fixture(scope="module", autouse=True)
def ready(admin: Admin, gateway: Gateway) -> None:
    """No test begins before both workers have said that they live."""
    until(lambda: len(admin.call("GET", "/v1/gateways").json()["items"]) == 2, "the workers to be listed")


def explain(admin: Admin, **body: str) -> dict[str, Any]:
    answer = admin.call("POST", "/v1/explain", body, role="viewer")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def agree(admin: Admin, gateway: Gateway, key: str) -> dict[str, Any]:
    """Asks both, and returns the explanation. The gateway's refusals are the explained ones, word for word."""
    explained = explain(admin, api_key=key)
    reply = gateway.get("/api/x", key=key)
    said = explained["would_answer"]
    assert said["status"] == reply.status
    if reply.status != 200:
        assert said["message"] == reply.json()["error"]["message"]
    return explained


def test_a_good_key(admin: Admin, gateway: Gateway) -> None:
    """A key in use: its state, organization, limits and bucket, and which workers hold it, by key and by id alike."""
    key = admin.key()
    explained = agree(admin, gateway, key["api_key"])
    assert explained["key"]["id"] == key["id"]
    assert explained["key"]["status"] == "active"
    assert explained["organization"]["id"] == key["organization_id"]
    assert explained["limits"] == {"per_minute": 100, "per_day": 10_000, "burst": 50, "source": "plan"}
    assert explained["bucket"]["daily_used"] == 0
    assert explained["workers"]["asked"] == 2
    by_id = explain(admin, key_id=key["id"])
    assert by_id["bucket"]["daily_used"] == 1
    assert sorted(each["held_as"] for each in by_id["workers"]["answers"]) == ["absent", "cached"]
    assert {each["would_answer"] for each in by_id["workers"]["answers"]} == {200, None}


def test_asking_is_no_use(admin: Admin) -> None:
    """Explaining a key neither counts against its limits nor as a use of it."""
    key = admin.key()
    for _ in range(3):
        assert explain(admin, api_key=key["api_key"])["bucket"]["minute_used"] == 0
    assert sql(admin.database_url, "SELECT last_used_at FROM api_keys WHERE id = %s", key["id"]) == [(None,)]


def test_a_revoked_key(admin: Admin, gateway: Gateway) -> None:
    """The reason of the revocation is told."""
    key = admin.key()
    admin.call("POST", f"/v1/keys/{key['id']}/revoke", {"reason": "found on a wall"})
    explained = agree(admin, gateway, key["api_key"])
    assert explained["would_answer"]["status"] == 403
    assert explained["would_answer"]["why"].endswith("found on a wall")


def test_a_rotated_key(admin: Admin, gateway: Gateway) -> None:
    """A key that its rotation ended names its successor."""
    key = admin.key()
    successor = admin.call("POST", f"/v1/keys/{key['id']}/rotate", {"overlap_seconds": 0}).json()
    explained = agree(admin, gateway, key["api_key"])
    assert explained["would_answer"]["message"] == "API key has expired"
    assert successor["id"] in explained["would_answer"]["why"]


def test_an_inactive_organization(admin: Admin, gateway: Gateway) -> None:
    """A good key of a deactivated organization is refused for that reason."""
    key = admin.key()
    admin.call("PATCH", f"/v1/organizations/{key['organization_id']}", {"active": False})
    assert agree(admin, gateway, key["api_key"])["would_answer"]["message"] == "organization is inactive"


@pytest.mark.parametrize(("limits", "word"), [((1, 100, 0), "minute"), ((100, 1, 0), "daily")])
def test_a_used_up_limit(admin: Admin, gateway: Gateway, limits: tuple[int, int, int], word: str) -> None:
    """An organization that has used its minute or its day up is told which, and until when."""
    key = admin.key()
    body = dict(zip(("per_minute", "per_day", "burst"), limits, strict=True))
    admin.call("PUT", f"/v1/organizations/{key['organization_id']}/limits", body)
    until(lambda: time.time() % 60 < 57, "a minute that does not end between two questions")
    until(lambda: gateway.get("/api/x", key=key["api_key"]).status == 429, "a refusal")
    explained = agree(admin, gateway, key["api_key"])
    assert explained["would_answer"]["message"] == f"Rate limit exceeded: {word} limit reached"
    assert explained["bucket"]["refused_by"] == word


@pytest.mark.parametrize("key", ["sk_test_nothing_like_a_key", mint("live")], ids=["malformed", "well formed"])
def test_nobodys_key(admin: Admin, gateway: Gateway, key: str) -> None:
    """A key of nobody's is refused, and nothing is known about it; a worker that met it remembers."""
    explained = agree(admin, gateway, key)
    assert explained["would_answer"]["message"] == "invalid API key"
    assert [explained[name] for name in ("key", "organization", "limits", "bucket")] == [None] * 4


def test_a_worker_remembers_nobodys_key(admin: Admin, gateway: Gateway) -> None:
    """A worker that was asked about an unknown key says that it remembers it."""
    key = mint("test")
    gateway.get("/api/x", key=key)
    answers = explain(admin, api_key=key)["workers"]["answers"]
    assert ("unknown", 403) in {(each["held_as"], each["would_answer"]) for each in answers}


def test_a_static_key(admin: Admin, gateway: Gateway) -> None:
    """A key of VALID_API_KEYS stands in no database; the gateways know it, and so it is explained."""
    explained = agree(admin, gateway, STATIC_KEY)
    assert explained["would_answer"]["status"] == 200
    assert explained["key"] is None
    assert explained["bucket"]["per_minute"] == 1_000
    assert [each["held_as"] for each in explained["workers"]["answers"]] == ["static", "static"]


def test_an_id_of_nobody(admin: Admin) -> None:
    """An id that no key has is a 404: there is no key to answer about."""
    assert admin.call("POST", "/v1/explain", {"key_id": NOWHERE}).status_code == 404


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, ("body",)),
        ({"api_key": "sk_test_x", "key_id": NOWHERE}, ("body",)),
        ({"api_key": "two words"}, ("body", "api_key")),
        ({"api_key": ""}, ("body", "api_key")),
        ({"api_key": "k" * 257}, ("body", "api_key")),
        ({"api_key": None}, ("body", "api_key")),
        ({"key_id": 7}, ("body", "key_id")),
    ],
)
def test_exactly_one_question(admin: Admin, body: dict[str, Any], place: tuple[str, ...]) -> None:
    """Both, neither, and what no client could send as a key are refused, without repeating the key."""
    answer = admin.call("POST", "/v1/explain", body)
    assert place in problems(answer)
    assert "two words" not in answer.text


def test_the_key_is_in_no_log(admin: Admin, gateway: Gateway) -> None:
    """Neither the admin app nor the gateway writes down the key that was asked about."""
    key = admin.key()["api_key"]
    for body in ({"api_key": key}, {"api_key": key, "more": key}, {"api_key": [key]}, {"api_key": f"{key} {key}"}):
        admin.call("POST", "/v1/explain", body, X_Request_ID="asked")
    until(lambda: len(admin.log(path="/v1/explain")) >= 4, "the lines of the requests")
    assert key not in admin.output
    assert key not in gateway.output
