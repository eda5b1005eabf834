"""When each key was last used, gathered in memory and written to the database in batches."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Self

from loguru import logger

from app.core.model import Credential

FLUSH_SECONDS: Final = 25.0
RETRY_SECONDS: Final = 5.0
"""`last_used_at` is promised to be a minute behind at most. Each write costs PostgreSQL 0.1 ms or more, most of it the
table's other indexes, so 100,000 keys in use take 10 s of these 25, or all of them on a busy machine."""
SPREAD_SECONDS: Final = 10.0
PAUSE_SECONDS_MAX: Final = 0.05
"""Between two batches, for who goes faster than that: nobody waits for them, and lookups share PostgreSQL with them."""
BATCH_KEYS: Final = 200
KEYS_MAX: Final = 1_048_576
STOP_SECONDS_MAX: Final = 2.0


class UseRecorder:
    """Collects uses from entering until leaving, and hands them to `record` (key_id -> unix seconds) in batches.

    `record` raises when the database does not answer: the batch is kept for the next time, soon. What cannot be written
    at the end is lost, and the log says so; what exceeds `keys_max` keys is not collected until there is room again.
    """

    def __init__(
        self,
        record: Callable[[Mapping[str, float]], Awaitable[None]],
        flush_seconds: float = FLUSH_SECONDS,
        keys_max: int = KEYS_MAX,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._record = record
        self._flush_seconds = flush_seconds
        self._keys_max = keys_max
        self._clock = clock
        self._sleep = sleep
        self._used: dict[str, float] = {}
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    def note(self, credential: Credential, now: float) -> None:
        """This key was used at `now` (unix seconds). Static keys have no row to write to."""
        if credential.key_id is not None and len(self._used) < self._keys_max:
            self._used[credential.key_id] = now

    @property
    def pending(self) -> int:
        """How many keys' uses are not written yet."""
        return len(self._used)

    async def flush(self, spread_seconds: float = 0.0) -> bool:
        """Writes what was collected, resting between batches as far as `spread_seconds` for all of them allow; whether
        that succeeded. Never raises for a database that is away."""
        used, self._used = self._used, {}
        batch: dict[str, float] = {}
        began, count = self._clock(), len(used)
        try:
            while used:
                batch = dict(used.popitem() for _ in range(min(len(used), BATCH_KEYS)))
                await self._record(batch)
                batch = {}
                early = began + spread_seconds * (1 - len(used) / count) - self._clock()
                await self._sleep(min(max(0.0, early), PAUSE_SECONDS_MAX) if used else 0)
        except Exception as error:  # noqa: BLE001  a lost time stamp is no reason to stop recording
            self._warn(error)
            return False
        finally:
            self._keep(used, batch)
        self._failing = False
        return True

    def _keep(self, kept: dict[str, float], batch: dict[str, float]) -> None:
        kept = {**batch, **kept}  # taken from its end: a row that somebody has locked holds its own batch up only
        kept.update(self._used)  # last: noted while the batch was being written, so newer
        while len(kept) > self._keys_max:
            kept.popitem()
        self._used = kept

    def _warn(self, error: Exception) -> None:
        if not self._failing:
            logger.warning(f"Last uses of API keys are not recorded for now: {type(error).__name__}: {error}")
        self._failing = True

    async def _run(self) -> None:
        rest, retry = self._flush_seconds, RETRY_SECONDS
        while True:
            await self._sleep(rest)
            due = self._clock() + self._flush_seconds  # what is noted from now on waits for the next write
            if await self.flush(SPREAD_SECONDS):
                rest, retry = max(RETRY_SECONDS, due - self._clock()), RETRY_SECONDS
            else:
                rest, retry = retry, min(2 * retry, self._flush_seconds)
            rest = min(rest, self._flush_seconds)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS_MAX):
                await self.flush()
        if self._used:
            logger.warning(f"The last uses of {len(self._used)} API keys could not be recorded")
