"""Who may: every endpoint for every role, and what becomes of those who guess."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from admin.endpoint import Endpoint
from admin.server import ENDPOINTS
from app.core.process.admin_token import RANK
from tests.admin.conftest import NOWHERE, TOKENS, Admin
from tests.gateway import until

GUARDED = [endpoint for endpoint in ENDPOINTS if endpoint.role is not None]
OPEN = [endpoint for endpoint in ENDPOINTS if endpoint.role is None]


def named(endpoint: Endpoint) -> str:
    return endpoint.name


def ask(admin: Admin, endpoint: Endpoint, authorization: str | None) -> httpx.Response:
    """A request that says nothing sensible, of a body of its own so that no limit is reset and nothing is done."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": authorization} if authorization else {})
    target = endpoint.path.replace("{id}", NOWHERE)
    return admin.http.request(endpoint.method, target, content=b'{"nonsense": 1}', headers=headers)


@pytest.mark.parametrize("role", TOKENS)
@pytest.mark.parametrize("endpoint", GUARDED, ids=named)
def test_every_endpoint_for_every_role(admin: Admin, endpoint: Endpoint, role: str) -> None:
    """A role below the table's gets 403 and learns what it lacks; the others get past the door."""
    answer = ask(admin, endpoint, f"Bearer {TOKENS[role]}")
    may = RANK[role] >= RANK[str(endpoint.role)]
    assert (answer.status_code == 403) == (not may)
    if not may:
        assert answer.json()["error"]["message"] == (
            f"a token with the role '{role}' may not do this, '{endpoint.role}' may"
        )


@pytest.mark.parametrize("endpoint", GUARDED, ids=named)
def test_nothing_without_a_token(admin: Admin, endpoint: Endpoint) -> None:
    """Without a token every guarded endpoint answers 401 and the scheme that would do."""
    answer = ask(admin, endpoint, None)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.json()["error"]["message"] == "missing Authorization header"


@pytest.mark.parametrize("endpoint", OPEN, ids=named)
def test_health_and_documents_need_no_token(admin: Admin, endpoint: Endpoint) -> None:
    """The health endpoints and the documentation are open to whoever reaches the port."""
    assert admin.call("GET", endpoint.path, role=None).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_the_scheme_in_any_case(admin: Admin, scheme: str) -> None:
    """RFC 9110 section 11.1: a scheme's name is case-insensitive."""
    answer = admin.call("GET", "/v1/keys", role=None, Authorization=f"{scheme} {TOKENS['viewer']}")
    assert answer.status_code == 200


@pytest.mark.parametrize("authorization", ["Basic abc", "Bearer", "Bearer a b", "sk_live_x"])
def test_malformed_authorization(admin: Admin, authorization: str) -> None:
    """Another scheme, or no single token, is a 401 that says what was expected."""
    answer = admin.call("GET", "/v1/keys", role=None, Authorization=authorization)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.json()["error"]["message"] == "invalid Authorization header format, expected 'Bearer <admin_token>'"


def test_two_authorizations_are_none(admin: Admin) -> None:
    """Two Authorization fields are refused, whichever of them is right."""
    token = f"Authorization: Bearer {TOKENS['owner']}\r\n"
    reply = admin.ask(f"GET /v1/keys HTTP/1.1\r\nHost: a\r\n{token}{token}Connection: close\r\n\r\n".encode())
    assert reply.status == 401


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, module_database: str) -> Iterator[Admin]:
    """An admin app of its own that believes X-Forwarded-For, so that a test can come from any address."""
    with Admin(tmp_path_factory.mktemp("guarded"), module_database, TRUSTED_PROXIES="127.0.0.1") as started:
        yield started


def attempt(admin: Admin, address: str, token: str = "w" * 32) -> tuple[int, float, httpx.Response]:
    began = time.monotonic()
    answer = admin.call("GET", "/v1/keys", role=None, Authorization=f"Bearer {token}", X_Forwarded_For=address)
    return answer.status_code, time.monotonic() - began, answer


def test_guessing_becomes_slow_for_who_guesses(guarded: Admin) -> None:
    """Wrong tokens are logged with their address, never the token, and wait longer and longer; others wait for nobody,
    and a token that was right from that address before goes on without a wait."""
    guesser, known, other = "203.0.113.9", TOKENS["viewer"], TOKENS["editor"]
    assert attempt(guarded, guesser, known)[0] == 200
    waits = [attempt(guarded, guesser)[:2] for _ in range(7)]
    assert [status for status, _ in waits] == [401] * 7
    assert all(seconds > least for (_, seconds), least in zip(waits[3:], (0.09, 0.19, 0.39, 0.79), strict=True))
    for address, token in ((guesser, known), ("203.0.113.10", other)):
        status, seconds, _ = attempt(guarded, address, token)
        assert status == 200
        assert seconds < 1.5  # the guesser's next wait is 1.6
    lines = until(lambda: guarded.log(client_ip=guesser, level="warn", failures=7), "the line of the seventh attempt")
    assert lines[0]["message"] == "a wrong admin token was presented"
    assert "w" * 32 not in guarded.output


def test_guessing_at_once_is_cut_off(tmp_path: Path, guarded: Admin) -> None:
    """Many guesses at the same time from one address: most are not looked at, and told when to come back."""
    guesser = "203.0.113.77"
    for _ in range(5):
        attempt(guarded, guesser)
    request = (
        f"GET /v1/keys HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {'v' * 40}\r\nX-Forwarded-For: {guesser}\r\n"
        "Connection: close\r\n\r\n"
    ).encode()
    clients = [guarded.client().send(request) for _ in range(24)]
    began = time.monotonic()
    assert attempt(guarded, "203.0.113.78", TOKENS["owner"])[0] == 200
    assert time.monotonic() - began < 1.9  # the guesser waits for 2
    replies = [client.reply() for client in clients]
    for client in clients:
        client.close()
    refused = [reply for reply in replies if reply.status == 429]
    assert len(refused) >= 8
    assert int(refused[0]["Retry-After"]) > 5
    assert refused[0].json()["error"]["message"] == "too many failed attempts from this address"
    assert {reply.status for reply in replies} == {401, 429}
