from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator

import orjson
import pytest

from app.core.limits.denials import REMEMBERED_SECONDS_MAX
from app.core.limits.limiter import Limiter
from app.core.model import PLANS, Limits, Organization, RedisAddress
from app.core.redis.link import RedisLink
from tests.core.clients import PATIENT_SECONDS, admitted, hammer, left
from tests.core.redis_clock import FAR_SECONDS, RedisClock
from tests.eventually import eventually
from tools.embedded import RedisServer

PREMIUM = Organization("o", "premium", PLANS["premium"])
ROOM = 1_500
"""What a fresh premium organization may do at once: limit and burst."""


@pytest.fixture
async def link(redis_url: str, redis_server: RedisServer) -> AsyncIterator[RedisLink]:
    async with RedisLink(RedisAddress("127.0.0.1", redis_server.port), name="test") as link:
        assert await link.wait_up(5)
        yield link


@pytest.fixture
async def clock(link: RedisLink, monkeypatch: pytest.MonkeyPatch) -> RedisClock:
    """Redis's minute stands still: no test's minute ends on its way."""
    clock = RedisClock(monkeypatch, link)
    await clock.set(FAR_SECONDS + 30)
    return clock


@pytest.fixture
async def limiter(link: RedisLink, clock: RedisClock) -> AsyncIterator[Limiter]:
    async with Limiter(link, node="test", workers=1, deadline_seconds=PATIENT_SECONDS) as limiter:
        assert limiter.is_exact
        yield limiter


async def test_four_processes_together_admit_exactly_limit_and_burst(redis_url: str, redis_server: RedisServer) -> None:
    """4 processes x 16 clients on one fresh organization: limit + burst are admitted, no remainder told twice."""
    for attempt in range(3):
        told = [pair for pairs in await _four_processes(redis_server.port, f"fresh{attempt}") for pair in pairs]
        minutes = Counter(reset_minute for reset_minute, _ in told)
        if len(minutes) == 1:  # else a UTC minute ended meanwhile, and the next one brought its own thousand
            assert len(told) == ROOM
            assert sorted(left for _, left in told) == list(range(ROOM))
            return
    pytest.fail("three bursts of a few seconds each straddled the end of a minute")


async def _four_processes(port: int, organization_id: str) -> list[list[list[int]]]:
    command = (sys.executable, "-m", "tests.core.clients", str(port), organization_id, "1000", "500")
    processes = [
        await asyncio.create_subprocess_exec(*command, f"node{number}", "16", "40", stdin=PIPE, stdout=PIPE)
        for number in range(4)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
        return [orjson.loads(output) for output, _ in outputs]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def test_thirty_two_clients_share_round_trips(limiter: Limiter) -> None:
    """With 32 requests in flight Redis is asked at most once for ten of them, and every one is counted."""
    large = Organization("large", "enterprise", Limits(1_000_000, 10_000_000, 0))
    verdicts = await hammer(limiter, large, clients=32, requests_each=100)
    assert sorted(verdict.minute_used for verdict in verdicts) == list(range(1, 3_201))
    assert limiter.requests == 3_200
    assert limiter.batches <= 320


async def test_first_come_first_served(limiter: Limiter) -> None:
    """Within a batch the requests that came first are admitted, each told what was left when its own turn came."""
    small = Organization("small", "basic", Limits(3, 100, 2))
    verdicts = await asyncio.gather(*(limiter.admit(small) for _ in range(8)))
    assert [verdict.refused_by for verdict in verdicts] == [None] * 5 + ["minute"] * 3
    assert [left(verdict) for verdict in verdicts] == [4, 3, 2, 1, 0, 0, 0, 0]
    assert [verdict.remaining_minute for verdict in verdicts] == [2, 1, 0, 0, 0, 0, 0, 0]
    assert [verdict.minute_used for verdict in verdicts] == [1, 2, 3, 4, 5, 5, 5, 5]


async def test_refused_requests_count_for_nothing_and_cost_no_round_trip(limiter: Limiter) -> None:
    """A flood against an empty bucket is answered from memory; the bucket's numbers stay as they were."""
    await hammer(limiter, PREMIUM, clients=16, requests_each=100)
    batches = limiter.batches
    verdicts = await hammer(limiter, PREMIUM, clients=4, requests_each=100)
    assert {verdict.refused_by for verdict in verdicts} == {"minute"}
    assert {verdict.minute_used for verdict in verdicts} == {ROOM}
    assert limiter.batches - batches <= 2


async def test_next_minute_admits_again(limiter: Limiter, clock: RedisClock) -> None:
    """At :00 of Redis's clock a drained organization has its limit again, within the second that a refusal is kept."""
    await hammer(limiter, PREMIUM, clients=16, requests_each=100)
    await clock.set(FAR_SECONDS + 60)
    assert (await limiter.admit(PREMIUM)).refused_by == "minute"
    await asyncio.sleep(REMEMBERED_SECONDS_MAX)
    verdicts = await hammer(limiter, PREMIUM, clients=16, requests_each=100)
    assert len(admitted(verdicts)) == 1_000
    assert {verdict.mode for verdict in verdicts} == {"redis"}


async def test_daily_refusal_has_the_days_reset(limiter: Limiter) -> None:
    """When the day is used up the refusal says daily, and its reset is midnight; with both empty too."""
    daily = Organization("daily", "basic", Limits(5, 5, 0))
    refused = (await hammer(limiter, daily, clients=1, requests_each=7))[-1]
    assert (refused.refused_by, refused.daily_used, refused.remaining_day) == ("daily", 5, 0)
    assert refused.reset_at == FAR_SECONDS + 86_400
    assert refused.now + refused.retry_after == refused.reset_at


async def test_changed_limits_count_from_the_next_request(limiter: Limiter) -> None:
    """An upgrade lifts a refusal at once, although it is remembered; a downgrade refuses at once, usage staying."""
    small, large = (Organization("o", "basic", limits) for limits in (Limits(3, 100, 0), Limits(10, 100, 0)))
    await hammer(limiter, small, clients=1, requests_each=5)
    upgraded = await limiter.admit(large)
    assert (upgraded.refused_by, upgraded.minute_used) == (None, 4)
    assert (await limiter.admit(small)).refused_by == "minute"


async def test_organizations_do_not_meet(limiter: Limiter) -> None:
    """More organizations than a batch takes, all at once: each has its own bucket and its own figures."""
    organizations = [Organization(str(number), "basic", Limits(number, 1_000, 0)) for number in range(1, 151)]
    verdicts = await asyncio.gather(*(limiter.admit(organization) for organization in organizations for _ in range(2)))
    for number, organization in enumerate(organizations):
        first, second = verdicts[2 * number : 2 * number + 2]
        assert first.limits == organization.limits
        assert (first.minute_used, first.refused_by) == (1, None)
        assert (second.refused_by is None) == (organization.limits.per_minute > 1)


async def test_flushed_scripts_lose_and_repeat_nothing(limiter: Limiter, link: RedisLink) -> None:
    """SCRIPT FLUSH at random moments under load: limit + burst are admitted, each remainder told once."""
    rng = random.Random(11)
    hammering = asyncio.create_task(hammer(limiter, PREMIUM, clients=32, requests_each=60))
    while not hammering.done():
        await link.run([("SCRIPT", "FLUSH")], 5)
        await asyncio.sleep(rng.random() * 0.004)
    taken = admitted(await hammering)
    assert sorted(map(left, taken)) == list(range(ROOM))
    assert limiter.errors == {}


async def test_clients_that_leave_do_not_break_the_batch(limiter: Limiter) -> None:
    """Requests cancelled while they wait: everybody else is decided, and what they took is at most their own."""
    rng = random.Random(5)
    waiting = [asyncio.create_task(limiter.admit(PREMIUM)) for _ in range(400)]
    for turn in range(6):
        for task in rng.sample(waiting, 20):
            task.cancel()
        await asyncio.sleep(0 if turn < 4 else 0.001)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    cancelled = sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    last = await limiter.admit(PREMIUM)
    assert cancelled > 0
    assert 401 - cancelled <= last.minute_used <= 401
    told = [outcome.minute_used for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len(set(told)) == len(told) == 400 - cancelled


async def test_worker_is_listed_while_it_lives(redis_url: str, redis_server: RedisServer, link: RedisLink) -> None:
    """A worker counts among the live ones from its first contact with Redis, and no longer once it ended in order."""
    async with Limiter(link, node="short-lived", workers=1) as limiter:
        await eventually(lambda: limiter.is_exact)
        assert await link.run([("ZRANGE", "rl:nodes", 0, -1)], 1) == [[b"short-lived"]]
    assert await link.run([("ZRANGE", "rl:nodes", 0, -1)], 1) == [[]]


async def test_key_that_is_no_bucket_costs_its_own_organization_only(limiter: Limiter, link: RedisLink) -> None:
    """A foreign value under one organization's key: that one is decided locally, all others exactly."""
    await link.run([("SET", "rl:{odd}", "not a hash")], 1)
    odd, even = await asyncio.gather(
        limiter.admit(Organization("odd", "basic", PLANS["basic"])), limiter.admit(PREMIUM)
    )
    assert (odd.mode, odd.refused_by) == ("local", None)
    assert even.mode == "redis"
    assert limiter.is_exact
    assert sum(limiter.errors.values()) == 1
