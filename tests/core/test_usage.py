from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping

import pytest

from app.core.data.database import StoreUnavailable
from app.core.keys.usage import (
    BATCH_KEYS,
    FLUSH_SECONDS,
    PAUSE_SECONDS_MAX,
    RETRY_SECONDS,
    SPREAD_SECONDS,
    UseRecorder,
)
from tests.core.loader import credential
from tests.eventually import eventually


class Table:
    """Where uses are written to."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self.batches: list[int] = []
        self.is_away = False

    async def record(self, used: Mapping[str, float]) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("away")
        self.batches.append(len(used))
        self.times.update(used)


async def test_the_latest_use_in_batches() -> None:
    """Each key's latest use is written, once, in bounded batches; a static key has none."""
    table = Table()
    recorder = UseRecorder(table.record)
    recorder.note(credential(1), 5.0)
    for number in range(BATCH_KEYS + 1):
        recorder.note(credential(number), 10.0)
    recorder.note(type(credential(1))(None, credential(1).organization), 10.0)
    assert recorder.pending == BATCH_KEYS + 1
    assert await recorder.flush()
    assert recorder.pending == 0
    assert table.batches == [BATCH_KEYS, 1]
    assert set(table.times.values()) == {10.0}


async def test_rests_between_batches() -> None:
    """In the background the batches have pauses between them, so that whoever looks keys up has the database too."""
    table = Table()
    began: list[float] = []

    async def record(used: Mapping[str, float]) -> None:
        began.append(asyncio.get_running_loop().time())
        await table.record(used)

    recorder = UseRecorder(record)
    for number in range(3 * BATCH_KEYS):
        recorder.note(credential(number), 1.0)
    assert await recorder.flush(SPREAD_SECONDS)
    assert table.batches == [BATCH_KEYS] * 3
    assert all(later - earlier >= PAUSE_SECONDS_MAX - 0.001 for earlier, later in itertools.pairwise(began))


async def test_what_failed_is_tried_again_soon() -> None:
    """A write that failed is made again in RETRY_SECONDS, then in twice that, and never later than the next one is due;
    one that took long is followed by a rest all the same."""
    rests: list[float] = []
    table, now, done = Table(), [0.0], asyncio.Event()

    async def record(used: Mapping[str, float]) -> None:
        table.is_away = len(rests) < 5
        now[0] += 0.0 if table.is_away else FLUSH_SECONDS
        await table.record(used)

    async def sleep(seconds: float) -> None:
        now[0] += seconds
        if seconds:
            rests.append(seconds)
        if len(rests) == 6:
            done.set()
            await asyncio.Event().wait()

    recorder = UseRecorder(record, clock=lambda: now[0], sleep=sleep)
    recorder.note(credential(1), 1.0)
    async with recorder, asyncio.timeout(15):
        await done.wait()
        assert table.times == {"key-1": 1.0}
    assert rests == [FLUSH_SECONDS, RETRY_SECONDS, 2 * RETRY_SECONDS, 4 * RETRY_SECONDS, FLUSH_SECONDS, RETRY_SECONDS]


@pytest.mark.parametrize(("seconds_each", "rested"), [(0.0, SPREAD_SECONDS), (0.1, 0.0)], ids=["quick", "slow"])
async def test_writes_are_spread(seconds_each: float, rested: float) -> None:
    """A quick database is given the uses over SPREAD_SECONDS at most, one that needs longer than that without rests."""
    now, rests = [0.0], [0.0]

    async def record(used: Mapping[str, float]) -> None:
        now[0] += seconds_each

    async def sleep(seconds: float) -> None:
        now[0] += seconds
        rests.append(seconds)

    recorder = UseRecorder(record, clock=lambda: now[0], sleep=sleep)
    for number in range(400 * BATCH_KEYS):
        recorder.note(credential(number), 1.0)
    assert await recorder.flush(SPREAD_SECONDS)
    assert rested - 0.1 <= sum(rests) <= rested


async def test_one_locked_row_holds_up_its_own_batch_only() -> None:
    """A key whose row cannot be written keeps no other key's use from being written."""
    table = Table()

    async def record(used: Mapping[str, float]) -> None:
        if "key-777" in used:
            raise StoreUnavailable("no answer within 0.9 s")
        await table.record(used)

    recorder = UseRecorder(record)
    for number in range(5 * BATCH_KEYS):
        recorder.note(credential(number), 1.0)
    for _ in range(3):
        assert not await recorder.flush()
    assert len(table.times) == 4 * BATCH_KEYS
    assert recorder.pending == BATCH_KEYS


async def test_a_minute_behind_at_most() -> None:
    """With keys in use all the time and a database that needs ten seconds for them, what it holds is never older than a
    minute, although what is noted during a write waits for the next."""
    now, behind, done = [0.0], [0.0], asyncio.Event()
    held: dict[str, float] = {}
    credentials = [credential(number) for number in range(50 * BATCH_KEYS)]

    async def record(used: Mapping[str, float]) -> None:
        now[0] += 0.2
        behind.extend(now[0] - held.get(key_id, 0.0) for key_id in used)
        held.update(used)

    async def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 200:
            done.set()
            await asyncio.Event().wait()
        for each in credentials if seconds else ():
            recorder.note(each, now[0])

    recorder = UseRecorder(record, clock=lambda: now[0], sleep=sleep)
    async with recorder, asyncio.timeout(30):
        await done.wait()
    assert len(behind) > 4 * len(credentials)
    assert max(behind) <= 60


async def test_an_outage_loses_nothing() -> None:
    """What could not be written is kept for the next time, and a newer use outlives an older one that was kept."""
    table = Table()
    recorder = UseRecorder(table.record)
    recorder.note(credential(1), 1.0)
    recorder.note(credential(2), 2.0)
    table.is_away = True
    flush = asyncio.create_task(recorder.flush())
    await asyncio.sleep(0)
    recorder.note(credential(1), 3.0)
    assert not await flush
    table.is_away = False
    assert await recorder.flush()
    assert table.times == {"key-1": 3.0, "key-2": 2.0}


async def test_bounded() -> None:
    """No more keys are held than there is room for, however long the outage."""
    table = Table()
    table.is_away = True
    recorder = UseRecorder(table.record, keys_max=3)
    for number in range(10):
        recorder.note(credential(number), 1.0)
    assert recorder.pending == 3
    flush = asyncio.create_task(recorder.flush())
    await asyncio.sleep(0)
    for number in range(10, 20):
        recorder.note(credential(number), 1.0)
    await flush
    assert recorder.pending == 3


async def test_written_in_the_background_and_at_the_end() -> None:
    """Uses are written every interval, and the last ones when the recorder is left."""
    table = Table()
    async with UseRecorder(table.record, flush_seconds=0.01) as recorder:
        recorder.note(credential(1), 1.0)
        await eventually(lambda: table.times)
    async with UseRecorder(table.record) as recorder:
        recorder.note(credential(2), 2.0)
    assert table.times == {"key-1": 1.0, "key-2": 2.0}


async def test_leaving_in_the_middle_of_a_write() -> None:
    """A write that is interrupted by leaving is made again, so that nothing noted is lost."""
    table = Table()
    started = asyncio.Event()
    attempts = 0

    async def record(used: Mapping[str, float]) -> None:
        nonlocal attempts
        attempts += 1
        started.set()
        if attempts == 1:
            await asyncio.Event().wait()
        await table.record(used)

    async with UseRecorder(record, flush_seconds=0.001) as recorder:
        recorder.note(credential(1), 1.0)
        await started.wait()
    assert table.times == {"key-1": 1.0}
