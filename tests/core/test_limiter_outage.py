from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from loguru import logger

from app.core.errors import LimiterUnavailable
from app.core.limits import watch
from app.core.limits.bucket import MINUTE_SECONDS
from app.core.limits.limiter import FallbackMode, Limiter
from app.core.limits.tally import DEADLINE_SECONDS
from app.core.limits.watch import FIRST_LOOK_SECONDS, HEARTBEAT_SECONDS
from app.core.model import PLANS, Limits, Organization, RedisAddress, Verdict
from app.core.redis.link import Command, RedisLink, RedisUnavailable
from tests.core.clients import admitted, hammer
from tests.eventually import eventually
from tools.embedded import RedisServer

Operator = Callable[..., Awaitable[list[Any]]]

PREMIUM = Organization("o", "premium", PLANS["premium"])
LARGE = Organization("large", "enterprise", Limits(1_000_000, 10_000_000, 0))


@asynccontextmanager
async def limiter_on(
    server: RedisServer,
    *,
    workers: int = 1,
    fallback: FallbackMode = "local",
    node: str = "test",
    deadline_seconds: float = 10 * DEADLINE_SECONDS,
    is_there: bool = True,
) -> AsyncIterator[Limiter]:
    """With more patience than in production: what a test did not do to Redis, a crowded machine shall not do either.

    `is_there`: Redis runs, and decides by the time that this is entered.
    """
    async with (
        RedisLink(RedisAddress("127.0.0.1", server.port), name=node) as link,
        Limiter(link, node=node, workers=workers, fallback=fallback, deadline_seconds=deadline_seconds) as limiter,
    ):
        if is_there:
            await eventually(lambda: limiter.is_exact)
        yield limiter


@pytest.fixture
async def operator(own_redis: RedisServer) -> AsyncIterator[Operator]:
    """Runs commands on the test's own Redis, as an operator with redis-cli would."""
    async with RedisLink(RedisAddress("127.0.0.1", own_redis.port), name="operator") as link:

        async def run(*command: Command) -> list[Any]:
            assert await link.wait_up(10)
            return await link.run(command, 10)

        yield run


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What the limiter says of itself, one text a line."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), filter="app.core.limits.outage")
    yield lines
    logger.remove(sink)


async def room_in_this_minute(seconds: float) -> None:
    """Waits for the next UTC minute when less than `seconds` of this one are left: debts are owed to one minute."""
    left = MINUTE_SECONDS - time.time() % MINUTE_SECONDS
    if left < seconds:
        await asyncio.sleep(left + 0.05)


async def used_in_redis(run: Operator, organization: Organization) -> tuple[int, int]:
    (answer,) = await run(("HMGET", f"rl:{{{organization.id}}}", "u", "U"))
    return int(answer[0]), int(answer[1])


async def thaw_late(server: RedisServer) -> None:
    """Later than any deadline: a server awake within a round trip of it may still count what nobody awaits."""
    await asyncio.sleep(0.1)
    server.thaw()


def modes(verdicts: list[Verdict]) -> set[str]:
    return {verdict.mode for verdict in verdicts}


async def test_dead_redis_neither_gives_nor_takes(
    own_redis: RedisServer, operator: Operator, logged: list[str]
) -> None:
    """Killed under load and back again: no request fails, and in the end Redis has counted every one admitted, once."""
    await room_in_this_minute(10)
    async with limiter_on(own_redis) as limiter:
        await eventually(lambda: limiter.is_exact)
        verdicts = await hammer(limiter, LARGE, clients=8, requests_each=50)
        await operator(("CONFIG", "SET", "appendfsync", "always"))  # what was acknowledged survives the crash
        hammering = asyncio.create_task(steadily(limiter, LARGE, until=lambda: not limiter.is_exact))
        own_redis.kill()
        verdicts += await hammering
        verdicts += await hammer(limiter, LARGE, clients=8, requests_each=50)
        assert modes(verdicts[-400:]) == {"local"}
        own_redis.start()
        verdicts += await steadily(limiter, LARGE, until=lambda: limiter.is_exact)
        verdicts += await hammer(limiter, LARGE, clients=8, requests_each=50)
        assert modes(verdicts[-400:]) == {"redis"}
        count = len(admitted(verdicts))
        assert await used_in_redis(operator, LARGE) == (count, count)
    assert logged[0] == "✅ Connected to Redis for rate limiting"
    assert [line.split(" (")[0].split(" after")[0] for line in logged[1:]] == [
        "Rate limits: deciding without Redis",
        "Rate limits: Redis decides again",
    ]


async def test_no_outage_of_seconds_goes_untold(own_redis: RedisServer, logged: list[str]) -> None:
    """Outages in a row are only counted while they are short: when the next look is seconds away the log says so."""
    late = RedisUnavailable("no answer within 50 ms", sent=True)
    async with limiter_on(own_redis) as limiter:
        assert limiter._watch is not None
        for _ in range(3):  # no request succeeds in between: the pauses double, 0.5 s, 1 s, 2 s
            await eventually(lambda: limiter.is_exact)
            told = len(logged)
            for _ in range(3):
                limiter._watch.judge([late], 0.0)
        await eventually(lambda: len(logged) > told)
        assert not limiter.is_exact
        assert logged[-1].startswith("Rate limits: deciding without Redis (no answer within 50 ms")


async def steadily(limiter: Limiter, organization: Organization, until: Callable[[], bool]) -> list[Verdict]:
    """Requests at a steady pace until the condition holds; all their verdicts."""
    verdicts = []
    async with asyncio.timeout(20):
        while not until():
            verdicts.append(await limiter.admit(organization))
            await asyncio.sleep(0.002)
    return verdicts


async def test_frozen_redis_neither_gives_nor_takes(own_redis: RedisServer, operator: Operator) -> None:
    """A server that hangs and wakes up again has counted every admitted request once, those that waited included."""
    await room_in_this_minute(12)
    async with limiter_on(own_redis) as limiter:
        verdicts = await hammer(limiter, LARGE, clients=8, requests_each=50)
        own_redis.freeze()
        verdicts += await hammer(limiter, LARGE, clients=8, requests_each=50)
        assert modes(verdicts) == {"redis", "local"}
        await thaw_late(own_redis)
        verdicts += await steadily(limiter, LARGE, until=lambda: limiter.is_exact)
        verdicts += await hammer(limiter, LARGE, clients=8, requests_each=50)
        count = len(admitted(verdicts))
        assert await used_in_redis(operator, LARGE) == (count, count)


async def test_paused_clients_are_decided_locally(own_redis: RedisServer, operator: Operator) -> None:
    """CLIENT PAUSE longer than the deadline: requests wait 50 ms once, then not at all, and none counts twice."""
    await room_in_this_minute(12)
    async with limiter_on(own_redis, deadline_seconds=DEADLINE_SECONDS) as limiter:
        await eventually(lambda: limiter.is_exact)
        await limiter.admit(LARGE)
        await operator(("CLIENT", "PAUSE", 1_500))
        began = time.perf_counter()
        verdicts = await hammer(limiter, LARGE, clients=4, requests_each=20)
        assert time.perf_counter() - began < 1.4  # not the pause
        assert modes(verdicts) == {"local"}
        await eventually(lambda: limiter.is_exact, seconds=15)
        await limiter.admit(LARGE)
        assert await used_in_redis(operator, LARGE) == (82, 82)


async def test_full_redis_counts_as_away(own_redis: RedisServer, operator: Operator) -> None:
    """-OOM is no 500 and no retry storm: local decisions, an open breaker, and all debts settled once there is room."""
    await room_in_this_minute(15)
    async with limiter_on(own_redis) as limiter:
        verdicts = await hammer(limiter, PREMIUM, clients=1, requests_each=5)
        await operator(("CONFIG", "SET", "maxmemory", "1"))
        verdicts += await hammer(limiter, PREMIUM, clients=4, requests_each=50)
        assert verdicts[-1].mode == "local"
        await eventually(lambda: limiter.breaker_state == "open" and limiter.errors["OOM"] >= 3)
        assert limiter.errors["OOM"] < 20
        await operator(("CONFIG", "SET", "maxmemory", "0"))
        await eventually(lambda: limiter.is_exact, seconds=15)
        verdicts.append(await limiter.admit(PREMIUM))
        assert await used_in_redis(operator, PREMIUM) == (206, 206)


async def test_many_debtors_are_settled_in_chunks(own_redis: RedisServer, operator: Operator) -> None:
    """Several hundred organizations admitted without Redis: each has exactly its own requests charged afterwards."""
    await room_in_this_minute(12)
    async with limiter_on(own_redis) as limiter:
        own_redis.freeze()
        await limiter.admit(PREMIUM)
        organizations = [Organization(f"o{number}", "premium", PLANS["premium"]) for number in range(300)]
        for number, organization in enumerate(organizations):
            await hammer(limiter, organization, clients=1, requests_each=1 + number % 3)
        await thaw_late(own_redis)
        await eventually(lambda: limiter.is_exact, seconds=15)
        await asyncio.gather(*(limiter.admit(organization) for organization in organizations))
        for number in (0, 1, 2, 150, 299):
            used = await used_in_redis(operator, organizations[number])
            assert used == (2 + number % 3,) * 2


async def test_open_breaker_adds_no_latency(own_redis: RedisServer) -> None:
    """While Redis is known to be away a decision takes microseconds and waits for nothing."""
    async with limiter_on(own_redis) as limiter:
        own_redis.freeze()
        await limiter.admit(PREMIUM)
        assert not limiter.is_exact
        samples = []
        for _ in range(1_000):
            began = time.perf_counter()
            await limiter.admit(LARGE)
            samples.append(time.perf_counter() - began)
        assert statistics.median(samples) < 0.001
        await thaw_late(own_redis)


async def test_share_is_by_live_workers_and_by_what_was_left(own_redis: RedisServer) -> None:
    """Without Redis three workers admit a third each of what an organization still had, and announce that share."""
    await room_in_this_minute(12)
    async with (
        limiter_on(own_redis, node="a") as first,
        limiter_on(own_redis, node="b"),
        limiter_on(own_redis, node="c") as third,
    ):
        assert third._fallback.workers == 3
        await hammer(third, PREMIUM, clients=8, requests_each=150)
        own_redis.freeze()
        verdicts = await hammer(third, PREMIUM, clients=1, requests_each=150)
        assert len(admitted(verdicts)) == 100
        assert verdicts[-1].limits == Limits(333, 33_333, 166)
        assert (verdicts[-1].refused_by, verdicts[-1].mode) == ("minute", "local")
        await thaw_late(own_redis)
        await eventually(lambda: third.is_exact and first.is_exact, seconds=15)


async def test_open_fallback_admits_everything(own_redis: RedisServer, operator: Operator) -> None:
    """RATE_LIMIT_FALLBACK=open: nothing is refused while Redis is away, and everything is charged when it is back."""
    await room_in_this_minute(12)
    async with limiter_on(own_redis, fallback="open") as limiter:
        own_redis.freeze()
        verdicts = await hammer(limiter, PREMIUM, clients=4, requests_each=500)
        assert len(admitted(verdicts)) == 2_000
        assert modes(verdicts) == {"open"}
        await thaw_late(own_redis)
        await eventually(lambda: limiter.is_exact, seconds=15)
        assert (await limiter.admit(PREMIUM)).refused_by == "minute"
        assert await used_in_redis(operator, PREMIUM) == (2_000, 2_000)


async def test_closed_fallback_is_unavailable(own_redis: RedisServer, operator: Operator) -> None:
    """RATE_LIMIT_FALLBACK=closed: 503 (Retry-After 1) and nothing counted, also for those that already waited."""
    async with limiter_on(own_redis, fallback="closed") as limiter:
        await limiter.admit(LARGE)
        own_redis.freeze()
        outcomes = await asyncio.gather(*(limiter.admit(LARGE) for _ in range(5)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {LimiterUnavailable}
        with pytest.raises(LimiterUnavailable) as caught:
            await limiter.admit(LARGE)
        assert (caught.value.status, dict(caught.value.headers)["Retry-After"]) == (503, "1")
        assert limiter.mode == "closed"
        await thaw_late(own_redis)
        await eventually(lambda: limiter.is_exact, seconds=15)
        await limiter.admit(LARGE)
        assert (await used_in_redis(operator, LARGE))[1] == 2


async def test_no_redis_configured_is_local_for_good() -> None:
    """Without REDIS_URL each worker admits its share, whatever the fallback, and remembers no debts."""
    async with Limiter(None, node="test", workers=4, fallback="closed", clock=lambda: 1_900_000_830.0) as limiter:
        verdicts = await hammer(limiter, PREMIUM, clients=4, requests_each=200)
        assert len(admitted(verdicts)) == 250 + 125
        assert (limiter.mode, limiter.is_exact, limiter.breaker_state) == ("local", False, "closed")
        assert limiter._fallback.indebted == 0


async def test_redis_that_comes_later_takes_over(own_redis: RedisServer, logged: list[str]) -> None:
    """Redis down at the start: the limiter is there at once, decides locally, and hands over what it did."""
    await room_in_this_minute(12)
    own_redis.stop()
    began = time.monotonic()
    async with limiter_on(own_redis, workers=2, is_there=False) as limiter:
        assert time.monotonic() - began < FIRST_LOOK_SECONDS + 2
        verdicts = await hammer(limiter, PREMIUM, clients=1, requests_each=10)
        assert modes(verdicts) == {"local"}
        assert verdicts[-1].limits == Limits(500, 50_000, 250)
        own_redis.start()
        await eventually(lambda: limiter.is_exact, seconds=15)
        assert (await limiter.admit(PREMIUM)).minute_used == 11
    assert logged == ["✅ Connected to Redis for rate limiting"]


async def test_nobody_resumes_before_the_others(own_redis: RedisServer, operator: Operator) -> None:
    """Two workers spend their shares without Redis; who is back first is granted nothing of what the other spent."""
    await room_in_this_minute(25)
    async with limiter_on(own_redis, node="a") as first, limiter_on(own_redis, node="b") as second:
        await eventually(
            lambda: first._fallback.workers == second._fallback.workers == 2, seconds=HEARTBEAT_SECONDS + 5
        )
        own_redis.freeze()
        verdicts = await hammer(first, PREMIUM, clients=4, requests_each=300)
        verdicts += await hammer(second, PREMIUM, clients=4, requests_each=300)
        await asyncio.sleep(1.5)  # the breakers are at different pauses by now
        own_redis.thaw()
        while not (first.is_exact and second.is_exact):
            verdicts += await hammer(first, PREMIUM, clients=1, requests_each=5)
            verdicts += await hammer(second, PREMIUM, clients=1, requests_each=5)
            await asyncio.sleep(0.01)
        verdicts += await hammer(first, PREMIUM, clients=4, requests_each=300)
        assert len(admitted(verdicts)) == 1_500


async def test_debts_are_settled_before_the_others_are_back(
    own_redis: RedisServer, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that waits for its siblings tells Redis what it admits: who is exact first grants none of it again."""
    await room_in_this_minute(6)
    async with limiter_on(own_redis, workers=2) as limiter:
        await wait_for_a_sibling_that_never_comes(limiter, operator, monkeypatch)
        for count in (10, 15):
            verdicts = await hammer(limiter, PREMIUM, clients=1, requests_each=count)
            assert (len(admitted(verdicts)), modes(verdicts)) == (count, {"local"})
        await until_used_in_redis(operator, PREMIUM, 25)
        assert not limiter.is_exact


async def test_redis_that_is_emptied_while_workers_wait_for_each_other(
    own_redis: RedisServer, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLUSHALL between a worker's return and that of its siblings: Redis is reminded of what was used up before."""
    await room_in_this_minute(10)
    async with limiter_on(own_redis, workers=2) as limiter:
        await eventually(lambda: limiter.is_exact)
        assert len(admitted(await hammer(limiter, PREMIUM, clients=4, requests_each=25))) == 100
        await wait_for_a_sibling_that_never_comes(limiter, operator, monkeypatch)
        await limiter.admit(PREMIUM)
        await until_used_in_redis(operator, PREMIUM, 101)  # the look at Redis that found it complete is over
        await operator(("FLUSHALL",))
        await until_used_in_redis(operator, PREMIUM, 101)
        assert not limiter.is_exact


async def wait_for_a_sibling_that_never_comes(
    limiter: Limiter, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loses the connection, and returns when the limiter is back and waits, for OTHERS_SECONDS_MAX."""
    await eventually(lambda: limiter.is_exact)
    monkeypatch.setattr(watch, "BLIP_SECONDS", 0.0)
    await operator(("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
    await eventually(lambda: not limiter.is_exact)
    await eventually(lambda: limiter.breaker_state == "half-open")


async def until_used_in_redis(run: Operator, organization: Organization, count: int) -> None:
    async with asyncio.timeout(4):
        while await run(("HGET", f"rl:{{{organization.id}}}", "u")) != [str(count).encode()]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_redis_that_comes_back_empty_gives_no_second_quota(own_redis: RedisServer, operator: Operator) -> None:
    """Redis loses all its data in a restart while nobody asks: what was used up stays so, minute and day alike."""
    await room_in_this_minute(15)
    daily = Organization("daily", "premium", Limits(1_000, 5, 0))
    async with limiter_on(own_redis, node="a") as first, limiter_on(own_redis, node="b") as second:
        assert len(admitted(await hammer(first, PREMIUM, clients=4, requests_each=300))) == 1_200
        assert len(admitted(await hammer(second, PREMIUM, clients=1, requests_each=100))) == 100
        assert len(admitted(await hammer(second, daily, clients=1, requests_each=6))) == 5
        await operator(("CONFIG", "SET", "appendonly", "no"))
        own_redis.restart_empty()
        await eventually(lambda: own_redis.command("ZCARD", "rl:nodes") == b":2\r\n")  # both have looked at it
        await eventually(lambda: first.is_exact and second.is_exact, seconds=15)
        verdicts = await hammer(first, PREMIUM, clients=4, requests_each=100)
        verdicts += await hammer(second, PREMIUM, clients=4, requests_each=100)
        assert len(admitted(verdicts)) == 200
        assert modes(verdicts) == {"redis"}
        assert (await second.admit(daily)).refused_by == "daily"
        assert (await first.admit(daily)).refused_by == "daily"


async def test_redis_that_is_emptied_under_way(own_redis: RedisServer, operator: Operator, logged: list[str]) -> None:
    """FLUSHALL by mistake is noticed at the next heartbeat: who used up a quota before has none again."""
    await room_in_this_minute(15)
    async with limiter_on(own_redis) as limiter:
        await eventually(lambda: limiter.is_exact)
        assert (await hammer(limiter, PREMIUM, clients=4, requests_each=400))[-1].refused_by == "minute"
        await operator(("FLUSHALL",))
        await eventually(lambda: len(logged) == 3, seconds=HEARTBEAT_SECONDS + 8)
        assert logged[1] == "Rate limits: deciding without Redis (it has lost its data)"
        assert (await limiter.admit(PREMIUM)).refused_by == "minute"


async def test_replica_is_left_for_the_primary(own_redis: RedisServer, operator: Operator) -> None:
    """-READONLY (a failover made this server a replica): decided locally meanwhile, and the connection is made anew."""
    await room_in_this_minute(12)
    async with limiter_on(own_redis) as limiter:
        await limiter.admit(LARGE)
        await operator(("REPLICAOF", "127.0.0.1", 1))
        assert (await limiter.admit(LARGE)).mode == "local"
        assert limiter._watch is not None
        assert not limiter._watch._link.is_up
        await operator(("REPLICAOF", "NO", "ONE"))
        await eventually(lambda: limiter.is_exact, seconds=15)
        await limiter.admit(LARGE)
        assert await used_in_redis(operator, LARGE) == (3, 3)
