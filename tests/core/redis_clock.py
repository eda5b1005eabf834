"""Redis with a clock that the test sets: the script as it ships, but for the one line that reads the time."""

from __future__ import annotations

import pytest

from app.core.limits import tally
from app.core.redis.link import RedisLink

READS_TIME = "redis.call('TIME')"
FAR_SECONDS = 4_000_000_000 - 4_000_000_000 % 86_400
"""Midnight of a day decades ahead: EXPIREAT with a past time would delete the key at once."""


class RedisClock:
    """Use before the limiter is made. `set` moves the clock of every script run from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, link: RedisLink) -> None:
        assert tally.SCRIPT.count(READS_TIME) == 1
        monkeypatch.setattr(
            tally, "SCRIPT", tally.SCRIPT.replace(READS_TIME, "redis.call('MGET', 'seconds', 'microseconds')")
        )
        self._link = link

    async def set(self, seconds: float) -> None:
        whole = int(seconds)
        microseconds = int((seconds - whole) * 1_000_000)
        await self._link.run([("MSET", "seconds", whole, "microseconds", microseconds)], 5)
