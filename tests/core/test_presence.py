"""Workers make themselves known, and answer what they hold of a key, over a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from app.core.changes.presence import QUESTIONS, SEEN_KEY, TEXTS_KEY, Presence
from app.core.changes.presence_message import WORKER, Worker
from app.core.changes.roster import ANSWER_SECONDS_MAX, Roster
from app.core.keys.credential import digest
from app.core.keys.holding import Holding
from app.core.model import PLANS, Credential, Organization, RedisAddress
from app.core.redis.link import RedisLink, RedisUnavailable
from tools.embedded import RedisServer

HELD = Holding("cached", Credential("key-1", Organization("org-1", "premium", PLANS["premium"]), expires_at=2e9))
KEY = digest("sk_test_known")


def look_up(wanted: bytes) -> Holding:
    return HELD if wanted == KEY else Holding("absent")


@asynccontextmanager
async def worker(redis: RedisServer, node: str) -> AsyncIterator[RedisLink]:
    """A worker that is present, and its link, which serves commands meanwhile."""
    async with RedisLink(RedisAddress("127.0.0.1", redis.port), name=node) as link:
        about = Worker(node, "1.2.3", 1_700_000_000.5, 7, None)
        async with Presence(link, lambda: about, look_up, node=node):
            assert await link.wait_up(5)
            yield link


@pytest.fixture
async def link(redis_url: str, redis_server: RedisServer) -> AsyncIterator[RedisLink]:
    async with RedisLink(RedisAddress("127.0.0.1", redis_server.port), name="admin") as link:
        assert await link.wait_up(5)
        yield link


async def poll(look: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not await look():  # noqa: ASYNC110  the condition lies in Redis
            await asyncio.sleep(0.01)


async def settled(roster: Roster, nodes: list[str]) -> None:
    """Until exactly these workers are listed and all of them listen for questions."""

    async def is_so() -> bool:
        listed = [seen.node for seen in await roster.workers()]
        return listed == nodes and (await roster.ask(KEY)).asked == len(nodes)

    await poll(is_so)


async def test_workers_are_listed_while_they_live(link: RedisLink, redis_server: RedisServer) -> None:
    """Each live worker is listed with what it says of itself; one that ends in good order is gone at once."""
    roster = Roster(link)
    assert await roster.workers() == []
    async with worker(redis_server, "one"):
        async with worker(redis_server, "two"):
            await settled(roster, ["one", "two"])
            assert (await roster.workers())[0] == Worker("one", "1.2.3", 1_700_000_000.5, 7, None)
        assert [seen.node for seen in await roster.workers()] == ["one"]


async def test_a_silent_worker_is_gone(link: RedisLink) -> None:
    """A worker that died without a word is not listed once its heartbeat is old, and nothing of it stays."""
    text = WORKER.encode(Worker("dead", "1.2.3", 0.0, 0, None))
    await link.run([(b"HSET", TEXTS_KEY, "dead", text), (b"ZADD", SEEN_KEY, 1_700_000_000, "dead")], 1)
    assert await Roster(link).workers() == []
    assert await link.run([(b"EXISTS", TEXTS_KEY, SEEN_KEY)], 1) == [0]


async def test_a_worker_of_another_version_spoils_no_list(link: RedisLink, redis_server: RedisServer) -> None:
    """What cannot be read is left out; fields that a later version added are passed over."""
    later = WORKER.encode(Worker("later", "9.9", 1.0, 2, 3.0))[:-1] + b',"mood":"fine"}'
    for node, text in (("later", later), ("odd", b"{}")):
        await link.run([(b"HSET", TEXTS_KEY, node, text), (b"ZADD", SEEN_KEY, 99_999_999_999, node)], 1)
    assert await Roster(link).workers() == [Worker("later", "9.9", 1.0, 2, 3.0)]


async def test_every_worker_answers(link: RedisLink, redis_server: RedisServer) -> None:
    """A question about a key is answered by each worker with what it holds, on a link that serves commands too."""
    async with worker(redis_server, "one") as busy, worker(redis_server, "two"):
        roster = Roster(link)
        await settled(roster, ["one", "two"])
        heard, *pings = await asyncio.gather(roster.ask(KEY), *(busy.run([(b"PING",)], 1) for _ in range(100)))
        assert pings == [[b"PONG"]] * 100
        assert heard.asked == 2
        assert [(answer.node, answer.holding) for answer in heard.answers] == [("one", HELD), ("two", HELD)]
        (other, _) = (await roster.ask(digest("sk_test_other"))).answers
        assert other.holding == Holding("absent")


async def test_nobody_listens(link: RedisLink) -> None:
    """Without a worker the answer comes at once and says that nobody was asked."""
    heard = await Roster(link).ask(KEY)
    assert (heard.asked, heard.answers) == (0, ())


async def test_a_worker_that_does_not_answer(link: RedisLink, redis_server: RedisServer) -> None:
    """A listener that stays silent costs the bound and no more; the others' answers are there."""
    async with (
        worker(redis_server, "one"),
        RedisLink(RedisAddress("127.0.0.1", redis_server.port), name="mute") as mute,
    ):
        roster = Roster(link)
        await settled(roster, ["one"])
        assert await mute.wait_up(5)
        silent = asyncio.create_task(_read_nothing(mute))
        await poll(lambda: _is_asked(roster, 2))
        began = asyncio.get_running_loop().time()
        heard = await roster.ask(KEY)
        took = asyncio.get_running_loop().time() - began
        silent.cancel()
        assert (heard.asked, [answer.node for answer in heard.answers]) == (2, ["one"])
        assert took >= ANSWER_SECONDS_MAX


async def _read_nothing(link: RedisLink) -> None:
    async for _ in link.listen(QUESTIONS):
        pass


async def _is_asked(roster: Roster, count: int) -> bool:
    return (await roster.ask(KEY)).asked == count


async def test_nonsense_silences_no_worker(link: RedisLink, redis_server: RedisServer) -> None:
    """A message that is no question is passed over, and the next question is answered."""
    async with worker(redis_server, "one"):
        roster = Roster(link)
        await settled(roster, ["one"])
        for nonsense in (b"", b"{}", b"\xff", b'{"nonce":"a","digest":"no hex"}', b"x" * 10_000):
            assert await link.run([(b"PUBLISH", QUESTIONS, nonsense)], 1) == [1]
        assert [answer.node for answer in (await roster.ask(KEY)).answers] == ["one"]


async def test_redis_comes_back_empty(own_redis: RedisServer) -> None:
    """A Redis that was away and lost everything learns of the workers again by itself; until then it says so."""
    address = RedisAddress("127.0.0.1", own_redis.port)
    async with RedisLink(address, name="admin") as link, worker(own_redis, "one"):
        roster = Roster(link)
        await poll(lambda: link.wait_up(5))
        await settled(roster, ["one"])
        await link.run([(b"FLUSHALL",)], 1)
        own_redis.kill()
        with pytest.raises(RedisUnavailable):
            await roster.workers()
        own_redis.start()
        assert await link.wait_up(10)
        await settled(roster, ["one"])
