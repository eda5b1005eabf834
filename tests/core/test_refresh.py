from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence

import pytest
from loguru import logger

from app.core.data.database import StoreUnavailable
from app.core.keys.keyring import KeyRing
from app.core.keys.refresh import PAUSE_SECONDS_MAX, READ_BATCH, RefreshReport, pause_seconds
from app.core.keys.refresher import Refresher
from app.core.model import Change, Credential
from tests.core.loader import Database, credential, key
from tests.eventually import eventually


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def ring(database: Database) -> KeyRing:
    return KeyRing(database.load, database.load_many, {}, 900)


@pytest.fixture
def messages() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
    yield lines
    logger.remove(sink)


def counts(report: RefreshReport) -> tuple[int, int, int]:
    return report.refreshed, report.changed, report.dropped


async def test_reads_used_and_drops_unused(ring: KeyRing, database: Database) -> None:
    """A refresh re-reads what was used since the last one, notices what changed unheard, and drops the rest."""
    for number in range(4):
        await ring.fetch(database.hold_key(number, organization=number))
    assert counts(await ring.refresh()) == (4, 0, 0)
    ring.find(key(1))
    ring.find(key(2))
    ring.find(key(3))
    database.hold_key(2, organization=2, tier="premium")
    database.rows.pop(next(digest for digest, row in database.rows.items() if row.key_id == "key-3"))
    assert counts(await ring.refresh()) == (2, 1, 2)
    assert ring.find(key(0)) is None
    assert ring.find(key(1)) == credential(1, organization=1)
    assert ring.find(key(2)) == credential(2, organization=2, tier="premium")
    assert ring.find(key(3)) is None
    assert len(ring) == 2


async def test_batches(ring: KeyRing, database: Database) -> None:
    """Keys are re-read in bounded batches, full ones as long as there are enough."""
    for number in range(2 * READ_BATCH + 10):
        await ring.fetch(database.hold_key(number))
    assert (await ring.refresh()).refreshed == 2 * READ_BATCH + 10
    assert database.batches == [READ_BATCH, READ_BATCH, 10]


async def test_a_change_during_a_refresh(ring: KeyRing, database: Database) -> None:
    """What a refresh read before a change was applied does not come back into memory."""
    for number in range(3):
        await ring.fetch(database.hold_key(number, organization=number))
    database.is_held = True
    run = asyncio.create_task(ring.refresh())
    await database.wait_for_loads(1)
    ring.apply([Change("key", "key-0"), Change("organization", "org-1")])
    database.is_held = False
    database.release()
    assert counts(await run) == (1, 0, 0)
    assert ring.find(key(0)) is None
    assert ring.find(key(1)) is None
    assert ring.find(key(2)) == credential(2, organization=2)


async def test_a_refresh_settles_doubts(ring: KeyRing, database: Database) -> None:
    """A refresh after a flush makes what it read reliable again; one during a flush does not."""
    await ring.fetch(database.hold_key(1))
    database.is_held = True
    run = asyncio.create_task(ring.refresh())
    await database.wait_for_loads(1)
    ring.apply([Change("all")])
    database.is_held = False
    database.release()
    assert counts(await run) == (0, 0, 0)
    assert ring.find(key(1)) is None
    assert counts(await ring.refresh()) == (1, 0, 0)
    assert ring.find(key(1)) == credential(1)


async def test_database_away(ring: KeyRing, database: Database) -> None:
    """With the database away nothing is dropped, not even what nobody used for two intervals."""
    await ring.fetch(database.hold_key(1))
    await ring.refresh()
    database.is_away = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await ring.refresh()
    assert ring.find(key(1)) == credential(1)


async def test_used_while_it_is_dropped(ring: KeyRing, database: Database) -> None:
    """A key that is used between being found idle and being dropped stays."""
    await ring.fetch(database.hold_key(1))
    await ring.refresh()
    database.is_held = True
    run = asyncio.create_task(ring.refresh())
    await database.wait_for_loads(1)
    ring.find(key(1))
    database.release()
    assert counts(await run) == (0, 0, 0)
    assert ring.find(key(1)) == credential(1)


async def test_the_loop_is_never_held(database: Database) -> None:
    """Other work runs between any two batches: a refresh of 20,000 keys lets go at least 256 times."""
    ring = KeyRing(database.load, database.load_many, {}, 0.1)  # no time for rests
    for number in range(20_000):
        await ring.fetch(database.hold_key(number))
    turns = 0
    run = asyncio.create_task(ring.refresh())
    while not run.done():
        turns += 1
        await asyncio.sleep(0)
    assert (await run).refreshed == 20_000
    assert turns >= 256


async def test_a_refresh_rests_between_batches(ring: KeyRing, database: Database) -> None:
    """Requests and the database have time for their own work between two batches."""
    for number in range(3 * READ_BATCH):
        await ring.fetch(database.hold_key(number))
    began: list[float] = []
    load_many = database.load_many

    async def timed(digests: Sequence[bytes]) -> dict[bytes, Credential]:
        began.append(asyncio.get_running_loop().time())
        return await load_many(digests)

    ring._load_many = timed
    assert (await ring.refresh()).refreshed == 3 * READ_BATCH
    assert all(later - earlier >= PAUSE_SECONDS_MAX - 0.001 for earlier, later in itertools.pairwise(began))
    assert len(began) == 3


@pytest.mark.parametrize(("keys", "interval"), [(1_000_000, 900.0), (1_000_000, 5.0), (20_000, 1.0), (101, 0.05)])
def test_rests_take_a_quarter_of_the_interval(keys: int, interval: float) -> None:
    """However many keys there are and however short the interval, the rests between the batches fit into it."""
    assert 0 < pause_seconds(keys, interval) <= PAUSE_SECONDS_MAX
    assert pause_seconds(keys, interval) * (keys // READ_BATCH) <= interval / 4 + 1e-9


@pytest.mark.parametrize(("took", "rest"), [(0.0, 1.0), (0.3, 0.7), (0.5, 0.5), (7.0, 0.5)])
async def test_the_interval_counts_from_the_beginning(took: float, rest: float) -> None:
    """A refresh is due an interval after the one before began; a slow database still gets half of it as a rest."""
    now, rests, done = [0.0], [], asyncio.Event()

    async def sleep(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 3:
            done.set()
            await asyncio.Event().wait()

    async def run() -> RefreshReport:
        now[0] += took
        return RefreshReport()

    async with Refresher(run, 1.0, lambda: 0.0, clock=lambda: now[0], sleep=sleep), asyncio.timeout(15):
        await done.wait()
    assert rests == [1.0, pytest.approx(rest), pytest.approx(rest)]


async def test_the_background_refresh_says_what_it_does(messages: list[str]) -> None:
    """The log has the promised first line, one line a run, one warning for a whole outage, and the return to normal."""
    outcomes: list[RefreshReport | None] = [
        RefreshReport(refreshed=3, changed=1, dropped=2, seconds=0.0123),
        None,
        None,
        RefreshReport(refreshed=4),
    ]
    done = asyncio.Event()

    async def run() -> RefreshReport:
        if not outcomes:
            done.set()
            await asyncio.Event().wait()
        outcome = outcomes.pop(0)
        if outcome is None:
            raise StoreUnavailable("away")
        return outcome

    async with Refresher(run, 0.002), asyncio.timeout(15):
        await done.wait()
    assert messages == [
        "[RefreshManager] Starting background cache refresh (interval: 0.002s)",
        "[RefreshManager] Refreshed 3 API keys in 12ms (1 changed, 2 dropped)",
        "[RefreshManager] Refresh failed, all keys stay in memory: StoreUnavailable: away",
        "[RefreshManager] Refreshed 4 API keys in 0ms (0 changed, 0 dropped)",
    ]


async def test_a_ring_refreshes_itself(database: Database, messages: list[str]) -> None:
    """An entered ring picks up what nobody told it, within an interval, and logs the interval as promised."""
    async with KeyRing(database.load, database.load_many, {}, 0.05) as ring:
        await ring.fetch(database.hold_key(1))
        database.hold_key(1, tier="premium")
        await eventually(lambda: ring.find(key(1)) == credential(1, tier="premium"))
    async with KeyRing(database.load, database.load_many, {}, 900):
        assert messages[-1] == "[RefreshManager] Starting background cache refresh (interval: 15m0s)"
