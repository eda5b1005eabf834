"""The background refresh: what is in memory is read again every interval, and the log says what that did."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, Self

from loguru import logger

from app.core.keys.refresh import RefreshReport
from app.core.process.duration import full

JITTER_SHARE: Final = 0.1
"""Every pause is up to this share shorter, so that the workers of a fleet do not ask all at once."""


class Refresher:
    """Calls `refresh` every `interval_seconds` from entering until leaving, whatever became of the run before.

    The interval counts from the beginning of a run, but after a run that took long it rests for half of it at least.
    """

    def __init__(
        self,
        refresh: Callable[[], Awaitable[RefreshReport]],
        interval_seconds: float,
        random_share: Callable[[], float] = random.random,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._refresh = refresh
        self._interval_seconds = interval_seconds
        self._random_share = random_share
        self._clock = clock
        self._sleep = sleep
        self._failing = False
        self._task: asyncio.Task[None] | None = None
        self.last_report: RefreshReport | None = None

    async def __aenter__(self) -> Self:
        logger.info(f"[RefreshManager] Starting background cache refresh (interval: {full(self._interval_seconds)})")
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        took = 0.0
        while True:
            interval = self._interval_seconds * (1 - JITTER_SHARE * self._random_share())
            await self._sleep(max(interval - took, interval / 2))
            began = self._clock()
            await self._refresh_once()
            took = self._clock() - began

    async def _refresh_once(self) -> None:
        try:
            report = await self._refresh()
        except Exception as error:  # noqa: BLE001  whatever it was, the next interval is another chance
            if not self._failing:
                logger.warning(
                    f"[RefreshManager] Refresh failed, all keys stay in memory: {type(error).__name__}: {error}"
                )
            self._failing = True
            return
        self._failing = False
        self.last_report = report
        logger.info(
            f"[RefreshManager] Refreshed {report.refreshed} API keys in {report.seconds * 1000:.0f}ms"
            f" ({report.changed} changed, {report.dropped} dropped)"
        )
