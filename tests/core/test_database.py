"""What callers see of a database that is late, refuses, dies, hangs and comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from app.core.data.database import CONNECT_SECONDS, CONNECTIONS_MAX, Database, StoreUnavailable, transaction
from db.migrate import migrate
from tests.eventually import eventually
from tests.tenants import add_organization, sql
from tools.cluster import Cluster

SECONDS_MAX = 1.0
"""What the gateway promises. The host is shared with other tests, so each bound has some room above it."""
ROOM_SECONDS = 1.5


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, name="test") as opened:
        await eventually(lambda: opened.is_up)
        yield opened


@pytest.fixture(scope="module")
def _cluster(short_folder: Path) -> Iterator[Cluster]:
    with Cluster(short_folder / "own-pg") as server:
        migrate(server.url)
        yield server


@pytest.fixture
async def outage(_cluster: Cluster) -> AsyncIterator[tuple[Cluster, Database]]:
    """A cluster for this file alone, and a way to it that is up."""
    async with Database(_cluster.url, name="test") as opened:
        await eventually(lambda: opened.is_up)
        yield _cluster, opened


async def refused_within(database: Database, seconds: float) -> str:
    """The reason of a statement that fails, soon enough."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as failure:
        await database.run("SELECT 1")
    assert time.monotonic() - began < seconds + ROOM_SECONDS
    return str(failure.value)


async def test_starting_without_a_database_waits_for_nothing_and_says_why(tmp_path: Path) -> None:
    """A database that is not there delays nothing but the statements that need it, and each fails with the reason."""
    began = time.monotonic()
    async with Database(f"postgresql://postgres@/postgres?host={tmp_path}", name="test") as database:
        assert time.monotonic() - began < ROOM_SECONDS
        assert "No such file or directory" in await refused_within(database, SECONDS_MAX)
        assert (database.is_up, database.ever_up) == (False, False)
        assert database.last_error is not None
        assert "No such file" in database.last_error


async def test_a_database_that_was_never_migrated_counts_as_away(new_database: object) -> None:
    """Tables that are missing are told as such, with the command that makes them, and do not count as up."""
    url = new_database(migrated=False)  # type: ignore[operator]
    async with Database(url, name="test") as database:
        await eventually(lambda: database.last_error)
        assert "python -m db migrate" in str(database.last_error)
        assert not database.ever_up


async def test_a_late_statement_ends_with_its_second_and_harms_no_other(database: Database) -> None:
    """A statement that takes too long fails within the second and leaves the connections usable."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await database.run("SELECT pg_sleep(30)")
    assert time.monotonic() - began < SECONDS_MAX + ROOM_SECONDS
    assert await database.run("SELECT 1") == [(1,)]


async def test_more_statements_than_connections_all_get_their_turn(database: Database) -> None:
    """Callers share the few connections; none is refused for the others' sake."""
    answers = await asyncio.gather(*(database.run("SELECT %s::int", (number,)) for number in range(100)))
    assert [rows[0][0] for rows in answers] == list(range(100))


async def test_a_caller_that_gives_up_leaves_at_once(database: Database) -> None:
    """Cancelling a caller takes no time, whatever its statement waits for, and costs no connection."""
    for _ in range(CONNECTIONS_MAX + 2):
        caller = asyncio.create_task(database.run("SELECT pg_sleep(30)"))
        await asyncio.sleep(0)
        began = time.monotonic()
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        assert time.monotonic() - began < SECONDS_MAX / 2
    assert await database.run("SELECT 1") == [(1,)]


async def test_connections_that_the_server_closed_cost_no_caller_anything(
    database: Database, database_url: str
) -> None:
    """After the server ended every connection the very next statement succeeds."""
    await asyncio.gather(*(database.run("SELECT pg_sleep(0.05)") for _ in range(CONNECTIONS_MAX)))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'test'"
        )
    assert await database.run("SELECT 1") == [(1,)]
    assert database.is_up


async def test_a_frozen_server_is_told_within_a_second_and_used_again_once_it_runs(
    outage: tuple[Cluster, Database],
) -> None:
    """With the server hanging every statement fails in time, callers can be cancelled, and it heals within seconds."""
    cluster, database = outage
    cluster.freeze()
    try:
        for _ in range(3):
            await refused_within(database, SECONDS_MAX)
        began = time.monotonic()
        caller = asyncio.create_task(database.run("SELECT 1"))
        await asyncio.sleep(0.05)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        assert time.monotonic() - began < ROOM_SECONDS
        assert (database.is_up, database.ever_up) == (False, True)
    finally:
        cluster.thaw()
    await eventually(lambda: database.is_up, seconds=2 + ROOM_SECONDS)
    assert await database.run("SELECT 1") == [(1,)]


async def test_a_frozen_server_does_not_hold_up_the_end(outage: tuple[Cluster, Database]) -> None:
    """Leaving takes no longer than the statements under way may, also when the server hangs."""
    cluster, _ = outage
    async with Database(cluster.url, name="leaving") as database:
        await eventually(lambda: database.is_up)
        statement = asyncio.create_task(database.run("SELECT pg_sleep(0.5)"))
        await asyncio.sleep(0)
        cluster.freeze()
        began = time.monotonic()
    try:
        assert time.monotonic() - began < 2 * SECONDS_MAX + ROOM_SECONDS
        assert isinstance((await asyncio.gather(statement, return_exceptions=True))[0], StoreUnavailable)
    finally:
        cluster.thaw()


async def test_a_killed_server_is_told_at_once_and_used_again_once_it_is_back(outage: tuple[Cluster, Database]) -> None:
    """With the server dead statements fail in time, and two seconds after it is back all is as before."""
    cluster, database = outage
    cluster.kill()
    try:
        await refused_within(database, SECONDS_MAX)
        await refused_within(database, SECONDS_MAX)
        assert (database.is_up, database.ever_up) == (False, True)
    finally:
        cluster.start()
    await eventually(lambda: database.is_up, seconds=2 + ROOM_SECONDS)
    assert await database.run("SELECT 1") == [(1,)]


async def test_a_transaction_is_whole_or_nothing(database_url: str) -> None:
    """The block's end commits, an exception in it takes everything back and comes out as it was."""
    insert = "INSERT INTO organizations (name, tier) VALUES ('Kept', 'basic')"
    async with transaction(database_url, name="test") as connection:
        await connection.execute(insert)
    with pytest.raises(KeyError):
        async with transaction(database_url, name="test") as connection:
            await connection.execute(insert)
            raise KeyError
    async with transaction(database_url, name="test") as connection:
        rows = await (await connection.execute("SELECT count(*) FROM organizations")).fetchall()
    assert rows == [(1,)]


@pytest.mark.parametrize("url", ["postgresql://postgres@127.0.0.1:1/x", "postgresql://postgres@/nosuch?host=/nowhere"])
async def test_a_transaction_on_nothing_says_why_in_one_line(url: str) -> None:
    """A database that cannot be reached is a StoreUnavailable with a reason, not an exception of a library."""
    with pytest.raises(StoreUnavailable, match="connection") as failure:
        async with transaction(url, name="test"):
            pytest.fail("there is no database")
    assert "\n" not in str(failure.value)


async def test_a_transaction_on_a_server_that_hangs_gives_up(outage: tuple[Cluster, Database]) -> None:
    """A server that accepts connections and says nothing costs a command the time to connect, and no more."""
    cluster, _ = outage
    cluster.freeze()
    began = time.monotonic()
    try:
        with pytest.raises(StoreUnavailable, match="timeout"):
            async with transaction(cluster.url, name="test"):
                pytest.fail("nobody answered")
    finally:
        cluster.thaw()
    assert time.monotonic() - began < CONNECT_SECONDS + ROOM_SECONDS


# --- transactions ---


async def test_a_pooled_transaction_is_whole_or_nothing(database_url: str) -> None:
    """What a block did is there after it, and nothing of a block that raised."""
    insert: LiteralString = "INSERT INTO organizations (name, tier) VALUES (%s, 'basic')"
    async with Database(database_url, name="test") as database:
        async with database.transaction() as connection:
            await connection.execute(insert, ("kept",))
        with pytest.raises(ZeroDivisionError):
            async with database.transaction() as connection:
                await connection.execute(insert, ("lost",))
                raise ZeroDivisionError
        with pytest.raises(psycopg.errors.CheckViolation):
            async with database.transaction() as connection:
                await connection.execute(insert, ("",))
        assert database.is_up
        assert await database.run("SELECT name FROM organizations") == [("kept",)]


async def test_a_transaction_does_not_begin_on_a_dead_connection(database_url: str) -> None:
    """Pooled connections that the server has ended cost no transaction: it begins on another one."""
    async with Database(database_url, name="doomed") as database:
        for _ in range(3):
            async with database.transaction() as connection:
                await connection.execute("SELECT 1")
            sql(
                database_url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'doomed'",
            )


async def test_a_transaction_that_waits_for_a_lock_ends(database_url: str) -> None:
    """A statement behind somebody else's lock gives up within a second, and the transaction with it."""
    add_organization(database_url)
    with psycopg.connect(database_url) as other:
        other.execute("SELECT 1 FROM organizations FOR UPDATE")
        async with Database(database_url, name="test") as database:
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="timeout"):
                async with database.transaction() as connection:
                    await connection.execute("UPDATE organizations SET name = 'n'")
            assert time.monotonic() - began < SECONDS_MAX + ROOM_SECONDS


async def test_without_a_server_no_transaction_begins() -> None:
    """A database that is away is a StoreUnavailable within a second, with its reason."""
    async with Database("postgresql://postgres@127.0.0.1:1/x", name="test") as database:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="refused"):
            async with database.transaction():
                pass
        assert time.monotonic() - began < SECONDS_MAX + ROOM_SECONDS
