"""One refresh: what was used since the last one is read again, in batches; what was not makes room."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from app.core.keys.changelog import ChangeLog
from app.core.keys.keytable import SHARDS, KeyTable
from app.core.model import Credential

LoadMany = Callable[[Sequence[bytes]], Awaitable[dict[bytes, Credential]]]
Outcome = Literal["same", "changed", "dropped", "left"]

READ_BATCH: Final = 100
IDLE_BATCH: Final = 2000
"""Each holds the event loop for about 1.5 ms, most of it rows becoming objects."""
PAUSE_SECONDS_MAX: Final = 0.05
SPREAD_SHARE: Final = 0.25
"""Of the interval: for so long a refresh rests between its batches. Nobody waits for it, requests and the database do
their work beside it."""
BATCH_SECONDS_MAX: Final = 10.0


@dataclass(frozen=True, slots=True)
class RefreshReport:
    """One run: keys read again, those of them that had changed, keys dropped (unused for an interval, or deleted)."""

    refreshed: int = 0
    changed: int = 0
    dropped: int = 0
    seconds: float = 0.0


def pause_seconds(keys: int, interval_seconds: float) -> float:
    """How long a refresh of so many keys rests between two batches, when it is due every `interval_seconds`."""
    return min(PAUSE_SECONDS_MAX, interval_seconds * SPREAD_SHARE * READ_BATCH / max(keys, READ_BATCH))


async def refresh(table: KeyTable, log: ChangeLog, load_many: LoadMany, interval_seconds: float) -> RefreshReport:
    """Walks the whole table, resting between any two batches, a quarter of the interval in all at most.

    Raises what `load_many` raises when the database is away, or TimeoutError; what was not reached stays as it is.
    """
    started = time.perf_counter()
    outcomes: Counter[Outcome] = Counter()
    used: list[bytes] = []
    idle: list[bytes] = []
    pause = pause_seconds(len(table), interval_seconds)
    for shard in range(SHARDS):
        swept = table.sweep(shard)
        used += swept[0]
        idle += swept[1]
        while len(used) >= READ_BATCH or len(idle) >= IDLE_BATCH:
            outcomes.update(await _batch(table, log, load_many, used[:READ_BATCH], idle[:IDLE_BATCH]))
            del used[:READ_BATCH], idle[:IDLE_BATCH]
            await asyncio.sleep(pause)
        await asyncio.sleep(0)
    outcomes.update(await _batch(table, log, load_many, used, idle))
    return RefreshReport(
        refreshed=outcomes["same"] + outcomes["changed"],
        changed=outcomes["changed"],
        dropped=outcomes["dropped"],
        seconds=time.perf_counter() - started,
    )


async def _batch(
    table: KeyTable, log: ChangeLog, load_many: LoadMany, used: list[bytes], idle: list[bytes]
) -> list[Outcome]:
    asked = used or idle[:1]  # with nothing to read again, one answer still shows that the database is there
    if not asked:
        return []
    began = log.position
    async with asyncio.timeout(BATCH_SECONDS_MAX):
        loaded = await load_many(asked)
    renewed = [_renew(table, log, digest, loaded.get(digest), began) for digest in used]
    return renewed + [_drop_idle(table, digest) for digest in idle]


def _renew(table: KeyTable, log: ChangeLog, digest: bytes, read: Credential | None, began: int) -> Outcome:
    held = table.peek(digest)
    if held is None or log.outranks(began, read or held):
        return "left"  # its next use reads it
    if read is None:
        table.drop(digest)
        return "dropped"
    return "same" if table.put(digest, read) == held else "changed"


def _drop_idle(table: KeyTable, digest: bytes) -> Outcome:
    if table.was_used(digest):
        return "left"
    return "dropped" if table.drop(digest) else "left"
