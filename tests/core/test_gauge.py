"""The bucket from outside: what it holds, and giving it back full, beside a limiter that uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.core.limits.gauge import Gauge
from app.core.limits.limiter import Limiter
from app.core.model import Change, Limits, Organization, RedisAddress
from app.core.redis.link import RedisLink, RedisUnavailable
from tests.core.clients import PATIENT_SECONDS, admitted, hammer
from tests.core.redis_clock import FAR_SECONDS, RedisClock
from tools.embedded import RedisServer

SMALL = Organization("o", "basic", Limits(per_minute=3, per_day=100, burst=2))


@pytest.fixture
async def link(redis_url: str, redis_server: RedisServer) -> AsyncIterator[RedisLink]:
    async with RedisLink(RedisAddress("127.0.0.1", redis_server.port), name="test") as link:
        assert await link.wait_up(5)
        yield link


@pytest.fixture
async def limiter(link: RedisLink, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Limiter]:
    """A limiter whose minute stands still at its half."""
    await RedisClock(monkeypatch, link).set(FAR_SECONDS + 30)
    async with Limiter(link, node="test", workers=1, deadline_seconds=PATIENT_SECONDS) as limiter:
        yield limiter


async def test_a_look_charges_nothing(link: RedisLink, limiter: Limiter) -> None:
    """Looking shows what the gateways have counted, however often, and is counted itself by nobody."""
    gauge = Gauge(link)
    fresh = await gauge.live(SMALL)
    assert (fresh.minute_used, fresh.remaining_minute, fresh.burst_remaining, fresh.refused_by) == (0, 3, 2, None)
    last = [await limiter.admit(SMALL) for _ in range(4)][-1]
    for _ in range(3):
        assert await gauge.live(SMALL) == last


async def test_it_says_what_the_next_request_runs_into(link: RedisLink, limiter: Limiter) -> None:
    """An empty minute, and an empty day, show before anybody is refused."""
    gauge = Gauge(link)
    await hammer(limiter, SMALL, 1, 5)
    assert (await gauge.live(SMALL)).refused_by == "minute"
    assert (await gauge.live(Organization("o", "basic", Limits(10, 5, 0)))).refused_by == "daily"


async def test_reset_gives_it_back_full(link: RedisLink, limiter: Limiter) -> None:
    """After a reset limit and burst are there again, at once in a worker that was refusing from memory and is told."""
    gauge = Gauge(link)
    verdicts = await hammer(limiter, SMALL, 1, 7)
    assert len(admitted(verdicts)) == 5
    await gauge.reset(SMALL.id)
    assert (await gauge.live(SMALL)).daily_used == 0
    limiter.apply([Change("organization", SMALL.id)])
    assert len(admitted(await hammer(limiter, SMALL, 1, 7))) == 5


@pytest.mark.parametrize("change", [Change("organization", "another"), Change("key", "o")])
async def test_other_changes_leave_refusals_alone(limiter: Limiter, change: Change) -> None:
    """What concerns another organization, or a key, does not send a flood of refused requests to Redis."""
    await hammer(limiter, SMALL, 1, 6)
    asked = limiter.batches
    limiter.apply([change])
    assert (await limiter.admit(SMALL)).refused_by == "minute"
    assert limiter.batches == asked
    limiter.apply([Change("all")])
    await limiter.admit(SMALL)
    assert limiter.batches == asked + 1


async def test_redis_away(own_redis: RedisServer) -> None:
    """Without Redis neither figures nor a reset are made up."""
    async with RedisLink(RedisAddress("127.0.0.1", own_redis.port), name="test") as link:
        assert await link.wait_up(5)
        own_redis.kill()
        gauge = Gauge(link)
        with pytest.raises(RedisUnavailable):
            await gauge.live(SMALL)
        with pytest.raises(RedisUnavailable):
            await gauge.reset(SMALL.id)
