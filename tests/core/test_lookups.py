from __future__ import annotations

import asyncio
import time

import pytest

from app.core.data.database import StoreUnavailable
from app.core.keys.credential import digest
from app.core.keys.lookups import BATCH_MAX, BATCHES_MAX, Lookups
from app.core.model import Credential
from tests.core.loader import Database, credential, key


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def lookups(database: Database) -> Lookups:
    return Lookups(database.load_many)


def begin(lookups: Lookups, *numbers: int) -> list[asyncio.Task[Credential | None]]:
    return [asyncio.create_task(lookups.load(digest(key(number)))) for number in numbers]


async def test_who_waits_at_the_same_moment_shares_a_statement(lookups: Lookups, database: Database) -> None:
    """Keys that are asked for in one turn of the loop are one statement; each waiter gets its own, or nothing."""
    for number in (1, 2):
        database.hold_key(number, organization=number)
    answers = await asyncio.gather(*begin(lookups, 1, 2, 3))
    assert answers == [credential(1, organization=1), credential(2, organization=2), None]
    assert database.batches == [3]
    assert await lookups.load(digest(key(2))) == credential(2, organization=2)
    assert database.batches == [3, 1]


async def test_who_comes_meanwhile_is_asked_for_next(lookups: Lookups, database: Database) -> None:
    """With BATCHES_MAX statements under way the others gather, and leave together when the first has its answer."""
    database.is_held = True
    reads = []
    for number in range(BATCHES_MAX):
        reads += begin(lookups, number)
        await database.wait_for_loads(number + 1)
    reads += begin(lookups, *range(10, 40))
    for _ in range(10):
        await asyncio.sleep(0)
    assert database.batches == [1] * BATCHES_MAX
    database.is_held = False
    database.release()
    assert await asyncio.gather(*reads) == [None] * len(reads)
    assert database.batches == [1] * BATCHES_MAX + [30]


async def test_who_comes_as_the_last_statement_ends_is_not_forgotten(lookups: Lookups, database: Database) -> None:
    """A key that is asked for in any of the turns in which the statements end gets its answer, with nobody after it."""
    for turns in range(8):
        database.is_held = True
        reads = []
        for number in range(BATCHES_MAX):
            reads += begin(lookups, number)
            await database.wait_for_loads(number + 1)
        database.is_held = False
        database.release()
        for _ in range(turns):
            await asyncio.sleep(0)
        reads += begin(lookups, 7)
        assert await asyncio.gather(*reads) == [None] * len(reads)


async def test_a_statement_has_a_bound(lookups: Lookups, database: Database) -> None:
    """More than BATCH_MAX keys take several statements, BATCHES_MAX of them at once, and none is forgotten."""
    database.is_held = True
    reads = begin(lookups, *range(3 * BATCH_MAX + 1))
    await database.wait_for_loads(BATCHES_MAX)
    assert database.batches == [BATCH_MAX] * BATCHES_MAX
    database.is_held = False
    database.release()
    assert await asyncio.gather(*reads) == [None] * len(reads)
    assert sorted(database.batches, reverse=True) == [BATCH_MAX] * 3 + [1]


async def test_a_failure_is_told_to_everybody_who_shares_it(lookups: Lookups, database: Database) -> None:
    """A database that is away fails the waiters of that statement; the next one is asked as if nothing had been."""
    database.is_away = True
    for outcome in await asyncio.gather(*begin(lookups, 1, 2), return_exceptions=True):
        assert isinstance(outcome, StoreUnavailable)
    database.is_away = False
    database.hold_key(1)
    assert await lookups.load(digest(key(1))) == credential(1)


async def test_who_left_is_not_asked_for(lookups: Lookups, database: Database) -> None:
    """A waiter that gave up costs the others nothing, neither in the statement under way nor in the next."""
    database.is_held = True
    leaves, stays, *others = begin(lookups, 1, 2)
    await database.wait_for_loads(1)
    others = begin(lookups, 3)
    await database.wait_for_loads(2)
    gone, waits = begin(lookups, 4, 5)
    await asyncio.sleep(0)
    leaves.cancel()
    gone.cancel()
    await asyncio.sleep(0)
    database.is_held = False
    database.hold_key(5)
    database.release()
    assert await asyncio.gather(stays, waits, *others) == [None, credential(5), None]
    assert database.batches == [2, 1, 1]


async def test_nobody_waits_longer_than_for_one_statement(lookups: Lookups, database: Database) -> None:
    """Behind statements that get no answer a waiter is told so within about a second, though its turn never came; and
    statements that never end keep no place."""
    database.is_held = True
    began = time.monotonic()
    reads = []
    for number in range(BATCHES_MAX):
        reads += begin(lookups, number)
        await database.wait_for_loads(number + 1)
    reads += begin(lookups, 7)
    for outcome in await asyncio.gather(*reads, return_exceptions=True):
        assert isinstance(outcome, TimeoutError)
        assert str(outcome) == "no answer within 1 s"
    assert 0.9 < time.monotonic() - began < 3  # the contract's second, and room for a busy machine
    database.is_held = False
    assert await lookups.load(digest(key(8))) is None


async def test_a_batch_that_is_cancelled_leaves_nobody_waiting(lookups: Lookups, database: Database) -> None:
    """When the loop ends under a batch its waiters are cancelled with it."""
    database.is_held = True
    reads = begin(lookups, 1, 2)
    await database.wait_for_loads(1)
    for task in asyncio.all_tasks() - {asyncio.current_task(), *reads}:
        task.cancel()
    for outcome in await asyncio.gather(*reads, return_exceptions=True):
        assert isinstance(outcome, asyncio.CancelledError)
