"""Wrong keys from one address, against a real database: who is slowed down, who is not, and what the database hears."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator

import psycopg
import pytest

from app.core.keys.credential import digest, mint
from app.core.keys.failed_keys import FAILURES_AT_ONCE
from tests.gateway import STATIC_KEY, Gateway, Reply, until
from tests.tenants import add_key, add_organization, sql

Start = Callable[..., Gateway]
GUESSER, NEIGHBOUR = "192.0.2.66", "192.0.2.77"


def ask(gateway: Gateway, key: str, address: str = GUESSER) -> Reply:
    """One request as a trusted router would pass it on for `address`."""
    return gateway.get("/api/x", key=key, X_Forwarded_For=address)


def good_key(url: str, number: int) -> str:
    """A key of organization ACME that no worker has seen."""
    key = mint("test")
    key_id = add_key(url, number)
    sql(url, "UPDATE api_keys SET key_digest = %s WHERE id = %s::uuid", digest(key).hex(), key_id)
    return key


def guess_until_refused(gateway: Gateway, address: str = GUESSER) -> list[int]:
    """The statuses of different wrong keys, up to and with the first that is no 403."""
    statuses: list[int] = []
    while not statuses or statuses[-1] == 403:
        statuses.append(ask(gateway, mint("test"), address).status)
    return statuses


@pytest.fixture
def gateway(start: Start, database_url: str) -> Gateway:
    add_organization(database_url)
    return start(DATABASE_URL=database_url, VALID_API_KEYS=f"{STATIC_KEY}:org_1:premium", TRUSTED_PROXIES="127.0.0.1")


@contextlib.contextmanager
def stuck_keys(url: str) -> Iterator[None]:
    """While this lasts, whoever reads a key waits, and is told 503 by the gateway: nobody gets an answer unnoticed."""
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


def test_guessing_is_refused_before_the_database_is_asked(gateway: Gateway, database_url: str) -> None:
    """After twenty wrong keys of one address the next gets 429, `Retry-After` and the envelope, and no row is read."""
    statuses = guess_until_refused(gateway)
    assert statuses[-1] == 429
    assert FAILURES_AT_ONCE <= statuses.count(403) <= FAILURES_AT_ONCE + 5  # one more for each second that it took
    with stuck_keys(database_url):
        reply = until(lambda: (found := ask(gateway, mint("live"))).status == 429 and found, "a refusal")
        assert ask(gateway, mint("test"), NEIGHBOUR).status == 503
    assert 1 <= int(reply["Retry-After"]) <= 30
    assert reply.json()["error"] == {"code": 429, "message": "too many failed API keys from this address"}
    assert [name for name, _ in reply.fields if "ratelimit" in name.lower()] == []
    line = gateway.access(reply["X-Request-ID"])
    assert (line["status"], line["client_ip"], line["organization_id"]) == (429, GUESSER, None)


def test_known_keys_are_never_hurt(gateway: Gateway, database_url: str) -> None:
    """From an address that guesses, every key that was used before goes on, also when it has to be read again."""
    known = good_key(database_url, 1)
    assert ask(gateway, known, NEIGHBOUR).status == 200
    guess_until_refused(gateway)
    assert [ask(gateway, key).status for key in (known, STATIC_KEY)] == [200, 200]
    sql(database_url, "UPDATE organizations SET tier = 'premium'")  # read by the worker within five seconds

    def is_in_force() -> bool:
        guess_until_refused(gateway)
        return ask(gateway, known)["X-RateLimit-Limit-Minute"] == "1000"

    until(is_in_force, "the key to be read again", 10)


def test_the_neighbours_are_not_concerned(gateway: Gateway, database_url: str) -> None:
    """A new key from another address is looked up as ever, and from the guesser's once that has been quiet."""
    late, early = good_key(database_url, 1), good_key(database_url, 2)
    guess_until_refused(gateway)
    assert ask(gateway, early, NEIGHBOUR).status == 200
    assert ask(gateway, late).status in (200, 429)  # a second may have passed
    until(lambda: ask(gateway, late).status == 200, "the guesser's address to be heard again", 5)


def test_the_same_wrong_key_counts_once(gateway: Gateway) -> None:
    """A client with one wrong key does not use up what its whole office has; malformed ones are keys like any other."""
    wrong = mint("live")
    assert {ask(gateway, wrong).status for _ in range(3 * FAILURES_AT_ONCE)} == {403}
    malformed = [ask(gateway, f"key-{secrets.token_hex(4)}").status for _ in range(2 * FAILURES_AT_ONCE)]
    assert malformed[0] == 403
    assert 429 in malformed
    assert ask(gateway, wrong).status == 403
