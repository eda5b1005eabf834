"""The gateway's statements against a real database: credentials, the journal of changes, last uses."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import psycopg
import pytest

from app.core.data import store as store_module
from app.core.data.store import MARK_SECONDS_MAX, RETENTION_SECONDS, Mark, Store, StoreUnavailable
from app.core.model import PLANS, Change, Credential, Limits, Organization
from tests.tenants import ACME, add_key, add_organization, key_digest, sql


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    async with Store(database_url, name="test") as opened:
        yield opened


async def changes(store: Store, mark: Mark) -> tuple[Mark, set[Change]]:
    """What came after `mark`, where nothing may be lost."""
    later, found, lost = await store.changes_after(mark)
    assert not lost
    assert len(set(found)) == len(found)
    return later, set(found)


# --- credentials ---


async def test_a_key_comes_with_everything_a_request_is_judged_by(store: Store, database_url: str) -> None:
    """One statement loads the key, its organization and the limits in force: the plan's, or the organization's own."""
    add_organization(database_url, tier="premium", active=False)
    key_id = add_key(database_url)
    plain = Credential(key_id, Organization(ACME, "premium", PLANS["premium"], active=False))
    assert await store.credential_by_digest(key_digest(1)) == plain
    sql(database_url, "INSERT INTO organization_limits VALUES (%s, 7, 70, 0)", ACME)
    sql(database_url, "UPDATE organizations SET active = true")
    sql(database_url, "UPDATE api_keys SET expires_at = to_timestamp(4e9), revoked_at = now(), revoked_reason = 'lost'")
    own = Organization(ACME, "premium", Limits(7, 70, 0))
    assert await store.credential_by_digest(key_digest(1)) == Credential(key_id, own, revoked=True, expires_at=4e9)


async def test_unknown_keys_are_simply_absent(store: Store, database_url: str) -> None:
    """Of many digests those that exist come back; one alone that does not is None."""
    add_organization(database_url)
    ids = {key_digest(number): add_key(database_url, number) for number in (1, 2)}
    found = await store.credentials_by_digests([key_digest(number) for number in range(500)])
    assert {digest: credential.key_id for digest, credential in found.items()} == ids
    assert await store.credentials_by_digests([]) == {}
    assert await store.credential_by_digest(key_digest(3)) is None


async def test_a_key_by_its_id(store: Store, database_url: str) -> None:
    """A key's id finds its digest and the same credential as the digest does; an id of nobody's finds nothing."""
    add_organization(database_url)
    key_id = add_key(database_url)
    assert await store.credential_by_id(key_id) == (key_digest(1), await store.credential_by_digest(key_digest(1)))
    assert await store.credential_by_id(str(uuid.uuid4())) is None


# --- changes ---


async def test_no_mark_means_now(store: Store, database_url: str) -> None:
    """The first poll takes a position and reports nothing of the past."""
    add_organization(database_url)
    mark, found, lost = await store.changes_after(None)
    assert (found, lost) == ([], False)
    _, nothing = await changes(store, mark)
    assert nothing == set()


async def test_every_kind_of_writing_is_reported_once(store: Store, database_url: str) -> None:
    """Whatever is written, by whomever, is in the next poll, and in no later one."""
    mark, _, _ = await store.changes_after(None)
    add_organization(database_url)
    key_id = add_key(database_url)
    mark, found = await changes(store, mark)
    assert found == {Change("organization", ACME), Change("key", key_id)}
    writes = {
        "UPDATE api_keys SET expires_at = now()": Change("key", key_id),
        "UPDATE api_keys SET revoked_at = now(), revoked_reason = 'lost'": Change("key", key_id),
        "DELETE FROM api_keys": Change("key", key_id),
        "UPDATE organizations SET tier = 'premium'": Change("organization", ACME),
        "INSERT INTO organization_limits SELECT id, 1, 1, 1 FROM organizations": Change("organization", ACME),
        "UPDATE organization_limits SET burst = 2": Change("organization", ACME),
        "DELETE FROM organization_limits": Change("organization", ACME),
        "UPDATE plans SET burst = 1 WHERE tier = 'basic'": Change("all"),
        "DELETE FROM organizations": Change("organization", ACME),
        "TRUNCATE api_keys": Change("all"),
    }
    for statement, change in writes.items():
        sql(database_url, statement)
        mark, found = await changes(store, mark)
        assert found == {change}, statement
    _, found = await changes(store, mark)
    assert found == set()


async def test_a_transaction_that_commits_late_is_not_overlooked(store: Store, database_url: str) -> None:
    """Of two open transactions the first to write commits last, and both are reported, each once, when they commit."""
    add_organization(database_url)
    first_id, second_id = add_key(database_url, 1), add_key(database_url, 2)
    mark, _, _ = await store.changes_after(None)
    touch = "UPDATE api_keys SET name = 'touched' WHERE id = %s"
    with psycopg.connect(database_url) as first, psycopg.connect(database_url) as second:
        first.execute(touch, (first_id,))
        second.execute(touch, (second_id,))
        second.commit()
        mark, found = await changes(store, mark)
        assert found == {Change("key", second_id)}
        mark, found = await changes(store, mark)
        assert found == set()
        first.commit()
    mark, found = await changes(store, mark)
    assert found == {Change("key", first_id)}
    _, found = await changes(store, mark)
    assert found == set()


async def test_a_transaction_that_stays_open_delays_only_itself(store: Store, database_url: str) -> None:
    """While one transaction stays open over many polls, the others' changes come at once and none comes twice."""
    add_organization(database_url)
    ids = [add_key(database_url, number) for number in range(6)]
    mark, _, _ = await store.changes_after(None)
    touch = "UPDATE api_keys SET name = 'touched' WHERE id = %s"
    with psycopg.connect(database_url) as open_one:
        open_one.execute(touch, (ids[0],))
        open_one.execute("SAVEPOINT within")
        open_one.execute(touch, (ids[1],))
        for key_id in ids[2:]:
            sql(database_url, touch, key_id)
            mark, found = await changes(store, mark)
            assert found == {Change("key", key_id)}
        open_one.commit()
    mark, found = await changes(store, mark)
    assert found == {Change("key", ids[0]), Change("key", ids[1])}


async def test_what_was_rolled_back_is_never_reported(store: Store, database_url: str) -> None:
    """A transaction that fails leaves no change behind."""
    mark, _, _ = await store.changes_after(None)
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO organizations (name, tier) VALUES ('Gone', 'basic')")
        connection.rollback()
    _, found = await changes(store, mark)
    assert found == set()


async def test_writers_at_once_lose_and_repeat_nothing(store: Store, database_url: str) -> None:
    """With six writers committing at random and a poll running all the time, each change is reported exactly once."""
    add_organization(database_url)
    mark, _, _ = await store.changes_after(None)
    seen: list[Change] = []
    statement = "INSERT INTO changes (kind, ref) VALUES ('key', %s)"

    async def write(count: int) -> set[Change]:
        written = set()
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            for _ in range(count):
                key_id = str(uuid.uuid4())
                await connection.execute(statement, (key_id,))
                await connection.execute("SELECT pg_sleep(random() * 0.004)")
                await connection.commit()
                written.add(Change("key", key_id))
        return written

    writers = asyncio.gather(*(write(40) for _ in range(6)))
    while not writers.done():
        mark, found = await changes(store, mark)
        seen += found
    _, found = await changes(store, mark)
    seen += found
    written = set().union(*await writers)
    assert len(seen) == len(set(seen))
    assert set(seen) == written


@pytest.mark.parametrize(
    "wrong",
    [
        lambda mark: replace(mark, database=mark.database + 1),
        lambda mark: replace(mark, at=mark.at - MARK_SECONDS_MAX - 1),
        lambda mark: replace(mark, snapshot="9000000000:9000000000:"),
    ],
    ids=["another database", "older than the retention", "an older state of the database"],
)
async def test_a_mark_that_proves_nothing_is_told_as_lost(store: Store, wrong: object) -> None:
    """When changes may have been missed the poll says so, and goes on from the new mark."""
    mark, _, _ = await store.changes_after(None)
    later, found, lost = await store.changes_after(wrong(mark))  # type: ignore[operator]
    assert (found, lost) == ([], True)
    _, nothing = await changes(store, later)
    assert nothing == set()


async def test_rows_of_another_cluster_are_not_reported_for_ever(store: Store, database_url: str) -> None:
    """A journal restored from a dump, whose transaction numbers lie in the future here, does not repeat itself."""
    mark, _, _ = await store.changes_after(None)
    sql(database_url, "INSERT INTO changes (kind, xid) VALUES ('all', '9000000000')")
    _, found = await changes(store, mark)
    assert found == set()


async def test_too_many_changes_are_told_as_lost(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll that would bring more than its bound brings none and says that anything may have changed."""
    monkeypatch.setattr(store_module, "CHANGES_MAX", 5)
    mark, _, _ = await store.changes_after(None)
    fill = "INSERT INTO changes (kind, ref) SELECT 'key', gen_random_uuid() FROM generate_series(1, %s)"
    sql(database_url, fill, 5)
    mark, found = await changes(store, mark)
    assert len(found) == 5
    sql(database_url, fill, 6)
    mark, found_list, lost = await store.changes_after(mark)
    assert (found_list, lost) == ([], True)


async def test_pruning_keeps_what_a_mark_may_still_need(store: Store, database_url: str) -> None:
    """Changes older than the retention go, younger ones stay."""
    insert = "INSERT INTO changes (kind, at) VALUES ('all', now() - make_interval(secs => %s))"
    for seconds in (RETENTION_SECONDS + 60, MARK_SECONDS_MAX):
        sql(database_url, insert, seconds)
    await store.prune_changes()
    rows = sql(
        database_url, "SELECT extract(epoch FROM now() - at)::int FROM changes WHERE at < now() - interval '1 hour'"
    )
    assert len(rows) == 1
    assert abs(rows[0][0] - MARK_SECONDS_MAX) < 60


# --- last uses ---


async def test_last_uses_only_move_forward_and_change_nothing_else(store: Store, database_url: str) -> None:
    """Reports in any order leave the latest use, unknown keys are ignored, and no gateway is told of a change."""
    add_organization(database_url)
    used, unused = add_key(database_url, 1), add_key(database_url, 2)
    before = sql(database_url, "SELECT id, version, updated_at FROM api_keys ORDER BY id")
    mark, _, _ = await store.changes_after(None)
    await store.record_use({used: 2_000.5, str(uuid.uuid4()): 5.0})
    await store.record_use({used: 1_000.0})
    await store.record_use({})
    rows = sql(database_url, "SELECT id::text, extract(epoch FROM last_used_at)::float8 FROM api_keys")
    assert dict(rows) == {used: 2_000.5, unused: None}
    assert sql(database_url, "SELECT id, version, updated_at FROM api_keys ORDER BY id") == before
    _, found = await changes(store, mark)
    assert found == set()


async def test_gateways_that_report_the_same_keys_at_once_do_not_block_each_other(
    store: Store, database_url: str
) -> None:
    """Many uses, reported by several workers in opposite orders at the same moment, are all written, and soon."""
    add_organization(database_url)
    sql(
        database_url,
        "INSERT INTO api_keys (organization_id, name, env, prefix, key_digest) "
        "SELECT %s, 'n', 'test', 'sk_test_0000', encode(sha256(i::text::bytea), 'hex') FROM generate_series(1, 1500) i",
        ACME,
    )
    ids = [row[0] for row in sql(database_url, "SELECT id::text FROM api_keys")]
    forwards, backwards = dict.fromkeys(ids, 1_000.0), dict.fromkeys(reversed(ids), 2_000.0)
    await asyncio.gather(*(store.record_use(each) for each in (forwards, backwards, forwards, backwards)))
    rows = sql(database_url, "SELECT DISTINCT extract(epoch FROM last_used_at)::int FROM api_keys")
    assert rows == [(2_000,)]


async def test_a_lock_on_the_tables_does_not_hold_the_gateway(store: Store, database_url: str) -> None:
    """While a migration holds a table the statements fail within their second instead of waiting for it."""
    await store.changes_after(None)
    with psycopg.connect(database_url) as connection:
        connection.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.credential_by_digest(key_digest(1))
        assert time.monotonic() - began < 2.5  # a second, and room for a busy machine
    assert await store.credential_by_digest(key_digest(1)) is None
