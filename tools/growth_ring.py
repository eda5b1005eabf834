"""The key ring by itself, with very many keys: what each costs in memory, to find, and to read again."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from app.core.data.store import Store
from app.core.keys.credential import digest
from app.core.keys.keyring import KeyRing
from app.core.model import Credential
from tools import population
from tools.memory import resident_bytes

BATCH: Final = 500
FINDS: Final = 200_000
TTL_SECONDS: Final = 900.0
"""As it ships. The ring is not entered, so no refresh comes but the one that is called for."""


@dataclass(frozen=True, slots=True)
class RingFigures:
    """`pause_ms`: the longest time for which the refresh kept everything else on the event loop waiting."""

    keys: int
    load_seconds: float
    bytes_per_key: float
    find_microseconds: float
    refresh_seconds: float
    refreshed: int
    pause_ms: float


async def measure(url: str, keys: int, on_keys: Callable[[int], None]) -> RingFigures:
    """Loads keys 0 to `keys` of the population through KeyRing and Store, without a gateway around them.

    `on_keys` hears of each batch. Raises StoreUnavailable.
    """
    async with Store(url, name="growth") as store:
        loader = _Loader(store)
        ring = KeyRing(loader.load, store.credentials_by_digests, {}, TTL_SECONDS, keys_max=keys + 1)
        gc.collect()
        before = resident_bytes(os.getpid())
        started = time.perf_counter()
        for first in range(0, keys, BATCH):
            numbers = range(first, min(first + BATCH, keys))
            await loader.fill(ring, [population.key(number) for number in numbers])
            on_keys(len(numbers))
        loaded = time.perf_counter()
        gc.collect()
        grown = resident_bytes(os.getpid()) - before
        find_seconds = _find_seconds(ring, keys)
        refreshed, refresh_seconds, pause_seconds = await _refresh(ring)
    return RingFigures(
        len(ring), loaded - started, grown / keys, find_seconds * 1e6, refresh_seconds, refreshed, pause_seconds * 1000
    )


class _Loader:
    """Gives the ring its keys one by one, as it asks, out of batches that were read at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[bytes, Credential] = {}

    async def fill(self, ring: KeyRing, keys: Sequence[bytes]) -> None:
        self._read = await self._store.credentials_by_digests([digest(key) for key in keys])
        for key in keys:
            await ring.fetch(key)

    async def load(self, digest: bytes) -> Credential | None:
        return self._read.get(digest)


def _find_seconds(ring: KeyRing, keys: int) -> float:
    """The mean of many, each of another key at random, its digest included."""
    draw = random.Random(2)  # noqa: S311 - the same in every run
    wanted = [population.key(draw.randrange(keys)) for _ in range(FINDS)]
    find = ring.find
    started = time.perf_counter()
    for key in wanted:
        find(key)
    return (time.perf_counter() - started) / FINDS


async def _refresh(ring: KeyRing) -> tuple[int, float, float]:
    """How many keys it read again, in how many seconds, and the longest pause in seconds."""
    pauses: list[float] = []
    watch = asyncio.create_task(_watch(pauses))
    await asyncio.sleep(0)
    report = await ring.refresh()
    watch.cancel()
    return report.refreshed, report.seconds, max(pauses, default=0.0)


async def _watch(pauses: list[float]) -> None:
    """Notes how long each turn of the loop took, while others have work for it too."""
    while True:
        at = time.perf_counter()
        await asyncio.sleep(0)
        pauses.append(time.perf_counter() - at)
