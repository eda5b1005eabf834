from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from app.core.limits.bucket import Bucket
from app.core.limits.fallback import Debt, Known
from app.core.limits.tally import Answer, Ask, Outcome, Tally
from app.core.model import Limits, RedisAddress
from app.core.redis.link import RedisLink, RedisRefusal, RedisUnavailable
from tests.core.redis_clock import FAR_SECONDS, RedisClock
from tools.embedded import RedisServer

PREMIUM = Limits(per_minute=1_000, per_day=100_000, burst=500)
PATIENT_SECONDS = 1_000_000.0
"""The clock that a test sets jumps by hours, which is not to make a question late."""


@pytest.fixture
async def link(redis_url: str, redis_server: RedisServer) -> AsyncIterator[RedisLink]:
    async with RedisLink(RedisAddress("127.0.0.1", redis_server.port), name="test") as link:
        assert await link.wait_up(5)
        yield link


@pytest.fixture
async def clock(link: RedisLink, monkeypatch: pytest.MonkeyPatch) -> RedisClock:
    clock = RedisClock(monkeypatch, link)
    await clock.set(FAR_SECONDS)
    return clock


@pytest.fixture
async def tally(link: RedisLink, clock: RedisClock) -> Tally:
    return Tally(link, node="test", deadline_seconds=PATIENT_SECONDS)


async def ask(tally: Tally, limits: Limits, want: int, organization_id: str = "o") -> Answer:
    (outcome,) = await tally.take([Ask(organization_id, limits, want)])
    assert isinstance(outcome, Answer), outcome
    return outcome


def codes(outcomes: list[Outcome]) -> list[str]:
    return [outcome.code for outcome in outcomes if isinstance(outcome, RedisRefusal)]


def random_limits(rng: random.Random) -> Limits:
    return Limits(per_minute=rng.randint(1, 40), per_day=rng.randint(1, 300), burst=rng.choice([0, 7, 60]))


def random_gap_seconds(rng: random.Random) -> float:
    return rng.choice([0, 0.4, 7, 61, 130, 3_600, 86_400, 90_000, -30, -120, -150, -200_000])


@pytest.mark.parametrize("seed", range(3))
async def test_script_and_bucket_are_the_same_arithmetic(tally: Tally, clock: RedisClock, seed: int) -> None:
    """Over random gaps, wants, plans and clock steps in both directions, Redis decides as the bucket in Python does."""
    rng = random.Random(seed)
    now, limits = FAR_SECONDS + 10 * 86_400.0, random_limits(rng)
    await clock.set(now)
    expected = Bucket.full(limits, now)
    for _ in range(250):
        now += random_gap_seconds(rng)
        limits = random_limits(rng) if rng.random() < 0.1 else limits
        want = rng.randint(1, 30)
        await clock.set(now)
        expected, granted = expected.rolled(limits, now).take(limits, want)
        answer = await ask(tally, limits, want)
        assert (answer.granted, answer.bucket) == (granted, expected)
        assert answer.now == pytest.approx(now, abs=1e-5)


async def test_slots_hammered_without_a_pause_give_limit_each_and_burst_once(tally: Tally, clock: RedisClock) -> None:
    """Whoever asks for more than there is in every one of j minutes is admitted j * limit + burst requests in all."""
    admitted = 0
    for minute in range(6):
        for second in (0, 20, 59.9):
            await clock.set(FAR_SECONDS + minute * 60 + second)
            admitted += (await ask(tally, PREMIUM, 700)).granted
    assert admitted == 6 * 1_000 + 500


async def test_day_is_over_at_midnight_utc(tally: Tally, clock: RedisClock) -> None:
    """A day used up at 23:59 refuses until 23:59:59.9 and admits again at 00:00:00."""
    limits = Limits(per_minute=100, per_day=30, burst=0)
    admitted = []
    for second in (-60, -0.1, 0):
        await clock.set(FAR_SECONDS + 86_400 + second)
        admitted.append((await ask(tally, limits, 40)).granted)
    assert admitted == [30, 0, 30]


async def test_refusals_and_looks_write_nothing(tally: Tally, link: RedisLink) -> None:
    """A steady denial costs Redis neither replication nor disk; looking at a bucket does not create it."""
    limits = Limits(per_minute=5, per_day=100, burst=0)
    await ask(tally, limits, 0, "looked at")
    await ask(tally, limits, 5)
    before = await link.run([("INFO", "persistence"), ("EXISTS", "rl:{looked at}")], 1)
    assert (await ask(tally, limits, 5)).granted == 0
    after = await link.run([("INFO", "persistence"), ("EXISTS", "rl:{looked at}")], 1)
    changes = [line for answer in (before[0], after[0]) for line in answer.split() if b"rdb_changes" in line]
    assert changes[0] == changes[1]
    assert before[1] == 0


async def test_key_outlives_its_day_until_it_is_full_again(tally: Tally, link: RedisLink) -> None:
    """A bucket expires an hour after its day, later if its burst fills slowly: expiry changes no decision."""
    await ask(tally, PREMIUM, 1)
    await ask(tally, Limits(per_minute=1, per_day=10, burst=500), 1, "slow")
    now_seconds, _ = (await link.run([("TIME",)], 1))[0]
    usual, slow = await link.run([("TTL", "rl:{o}"), ("TTL", "rl:{slow}")], 1)
    midnight = FAR_SECONDS + 86_400 - int(now_seconds)
    assert abs(usual - (midnight + 3_600)) <= 2
    assert abs(slow - (midnight + 60 * 502)) <= 2


async def test_debts_are_charged_while_their_windows_last(tally: Tally, clock: RedisClock) -> None:
    """Settling charges minute and day whether there is room or not, and nothing of a minute or day that is over."""
    limits = Limits(per_minute=10, per_day=100, burst=0)
    slot, day = FAR_SECONDS // 60, FAR_SECONDS // 86_400
    await ask(tally, limits, 8)
    await tally.settle([Debt("o", limits, slot, 5, day, 20)])
    assert (await ask(tally, limits, 0)).bucket == Bucket(slot, 13, 0, day, 28)
    await clock.set(FAR_SECONDS + 60)
    await tally.settle([Debt("o", limits, slot, 5, day, 20), Debt("new", limits, slot + 1, 3, day - 1, 9)])
    assert (await ask(tally, limits, 0)).bucket == Bucket(slot + 1, 0, 0, day, 48)
    assert (await ask(tally, limits, 0, "new")).bucket == Bucket(slot + 1, 3, 0, day, 0)


async def test_a_reminder_takes_back_nothing_and_gives_nothing(tally: Tally, clock: RedisClock) -> None:
    """A missing bucket becomes what was told last; one that is there has never less used, never more carried."""
    limits = Limits(per_minute=10, per_day=100, burst=5)
    slot, day = FAR_SECONDS // 60, FAR_SECONDS // 86_400
    told = Bucket(slot, 9, 2, day, 40)
    for _ in range(2):
        await tally.remind([Known("lost", limits, told), Known("old", limits, told._replace(slot=slot - 1))])
        assert (await ask(tally, limits, 0, "lost")).bucket == told
        assert (await ask(tally, limits, 0, "old")).bucket == Bucket(slot, 0, 3, day, 40)
    await ask(tally, limits, 12, "begun")
    await tally.remind([Known("begun", limits, told)])
    assert (await ask(tally, limits, 0, "begun")).bucket == Bucket(slot, 12, 2, day, 40)
    await clock.set(FAR_SECONDS + 86_400)
    await tally.remind([Known("lost", limits, told)])
    assert (await ask(tally, limits, 0, "lost")).bucket == Bucket(slot + 1_440, 0, 5, day + 1, 0)


async def test_flushed_scripts_are_loaded_and_only_what_did_not_run_is_repeated(tally: Tally, link: RedisLink) -> None:
    """After SCRIPT FLUSH no request is lost or counted twice, whatever the moment."""
    rng = random.Random(7)
    asked = 0
    for _ in range(60):
        if rng.random() < 0.4:
            await link.run([("SCRIPT", "FLUSH")], 1)
        wants = [rng.randint(1, 4) for _ in range(3)]
        asked += sum(wants)
        outcomes = await tally.take([Ask(f"o{number}", PREMIUM, want) for number, want in enumerate(wants)])
        assert [outcome.granted for outcome in outcomes if isinstance(outcome, Answer)] == wants
    used = [(await ask(tally, PREMIUM, 0, f"o{number}")).bucket.used for number in range(3)]
    assert sum(used) == asked


async def test_question_that_redis_finds_too_late_is_not_charged(own_redis: RedisServer) -> None:
    """A stalled Redis that wakes up charges nothing for what it finds waiting: that was decided without it."""
    async with RedisLink(RedisAddress("127.0.0.1", own_redis.port), name="test") as link:
        await link.wait_up(5)
        tally = Tally(link, node="test", deadline_seconds=0.5)
        await tally.probe()
        asked = await ask(tally, PREMIUM, 3)
        own_redis.freeze()
        with pytest.raises(RedisUnavailable):
            await tally.take([Ask("o", PREMIUM, 100)])
        await asyncio.sleep(0.05)
        own_redis.thaw()
        assert await link.wait_up(5)
        await tally.probe()
        bucket = (await ask(tally, PREMIUM, 0)).bucket
        assert (bucket.used, bucket.used_today) == (3 if bucket.slot == asked.bucket.slot else 0, 3)


async def test_refused_write_comes_back_under_its_own_name(own_redis: RedisServer) -> None:
    """OOM and READONLY are told as such, by questions and by probes, although a script ran into them."""
    async with RedisLink(RedisAddress("127.0.0.1", own_redis.port), name="test") as link:
        await link.wait_up(5)
        tally = Tally(link, node="test", deadline_seconds=5)
        await tally.probe()
        for hurt, heal, code in (
            (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), "OOM"),
            (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), "READONLY"),
        ):
            await link.run([hurt], 1)
            assert codes(await tally.take([Ask("o", PREMIUM, 1)])) == [code]
            with pytest.raises(RedisRefusal, match=code):
                await tally.probe()
            await link.run([heal], 1)
            assert (await ask(tally, PREMIUM, 1)).granted == 1


async def test_live_workers_are_counted(link: RedisLink) -> None:
    """Each worker counts itself and all whose last heartbeat is not older than 15 s; one that leaves goes at once."""
    first, second = (Tally(link, node=node, deadline_seconds=5) for node in ("a", "b"))
    assert [await first.probe(), await second.probe(), await first.beat()] == [
        (1, True, 1),
        (2, True, 1),
        (2, False, 2),
    ]
    now_seconds, _ = (await link.run([("TIME",)], 1))[0]
    await link.run([("ZADD", "rl:nodes", int(now_seconds) - 17, "dead", int(now_seconds) - 13, "slow")], 1)
    assert (await first.beat())[:2] == (3, False)
    loop = asyncio.get_running_loop()
    assert (await first.beat(loop.time() - 5)).back == 2
    await second.leave()
    assert (await first.beat())[:2] == (2, False)
