from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from loguru import logger

from app.core.changes import feed as changes
from app.core.changes.change_message import CHANGES_MAX
from app.core.changes.feed import CHANNEL, PUBLISH_SECONDS, ChangeFeed, publish
from app.core.data.database import StoreUnavailable
from app.core.model import Change, RedisAddress
from app.core.redis.link import RedisLink
from tests.eventually import eventually
from tools.embedded import RedisServer

KEY = Change("key", "00000000-0000-0000-0000-0000000000aa")
OTHER = Change("organization", "00000000-0000-0000-0000-0000000000bb")
ALL = Change("all")
ROOM_SECONDS = 1.5
"""For a machine that is busy with other things."""


class Journal:
    """The database's side: what each poll was asked, and what the next ones answer; marks are 1, 2, 3..."""

    def __init__(self) -> None:
        self.asked: list[int | None] = []
        self.changes: list[Change] = []
        self.is_lost = False
        self.is_away = False
        self._marks = itertools.count(1)

    async def poll(self, mark: int | None) -> tuple[int, list[Change], bool]:
        self.asked.append(mark)
        if self.is_away:
            raise StoreUnavailable("away")
        changes, self.changes = self.changes, []
        lost, self.is_lost = self.is_lost, False
        return next(self._marks), changes, lost


def link_to(server: RedisServer) -> RedisLink:
    return RedisLink(RedisAddress("127.0.0.1", server.port), name="test")


@pytest.fixture
async def link(redis_url: str, redis_server: RedisServer) -> AsyncIterator[RedisLink]:
    async with link_to(redis_server) as link:
        assert await link.wait_up(5)
        yield link


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    yield lines
    logger.remove(sink)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pauses of the feed, a hundred times shorter."""
    for name in ("POLL_PAUSE_SECONDS", "RETRY_PAUSE_SECONDS"):
        monkeypatch.setattr(changes, name, getattr(changes, name) / 100)


async def until_heard(link: RedisLink, told: list[Change], gateways: int) -> None:
    """Publishes until so many hear it: a subscription takes a moment to stand."""
    async with asyncio.timeout(15):
        while await publish(link, told) != gateways:  # noqa: ASYNC110  only Redis knows
            await asyncio.sleep(0.005)


# --- publishing ---


async def test_published_to_every_gateway(link: RedisLink, redis_server: RedisServer) -> None:
    """Everyone who listens hears every change, in order, and the publisher learns how many they are."""
    assert await publish(link, [KEY]) == 0
    heard: list[Change] = []
    async with (
        link_to(redis_server) as first,
        link_to(redis_server) as second,
        ChangeFeed(first, None, heard.extend),
        ChangeFeed(second, None, lambda _: None),
    ):
        await until_heard(link, [ALL], 2)
        many = [Change("key", str(uuid.uuid4())) for _ in range(2 * CHANGES_MAX + 1)]
        assert await publish(link, many) == 2
        await eventually(lambda: heard[-1:] == many[-1:])
        assert heard[-len(many) :] == many


async def test_publishing_without_redis() -> None:
    """With nothing listening on Redis's port, publishing ends within its time and says that nobody was told."""
    async with RedisLink(RedisAddress("127.0.0.1", 1), name="test") as link:
        began = time.monotonic()
        assert await publish(link, [KEY]) is None
        assert time.monotonic() - began < PUBLISH_SECONDS + ROOM_SECONDS


async def test_publishing_to_a_frozen_redis(own_redis: RedisServer) -> None:
    """A Redis that does not answer costs half a second, not more."""
    async with link_to(own_redis) as link:
        assert await link.wait_up(5)
        own_redis.freeze()
        began = time.monotonic()
        assert await publish(link, [KEY]) is None
        assert time.monotonic() - began < PUBLISH_SECONDS + ROOM_SECONDS


# --- listening ---


async def test_foreign_messages_are_ignored(link: RedisLink, redis_server: RedisServer, warnings: list[str]) -> None:
    """Nonsense on the channel changes nothing, stops nothing, and costs one warning however much of it there is."""
    heard: list[Change] = []
    feed: ChangeFeed[int]
    async with link_to(redis_server) as own, ChangeFeed(own, None, heard.extend) as feed:
        await until_heard(link, [KEY], 1)
        await eventually(lambda: feed.last_change_at is not None)
        for nonsense in (b"", b"[]", b"{}", b'[{"kind":"all"}]', b"\xff" * 100_000):
            assert await link.run([("PUBLISH", CHANNEL, nonsense)], 1.0) == [1]
        assert await publish(link, [OTHER]) == 1
        await eventually(lambda: heard[-1:] == [OTHER])
        assert set(heard) == {KEY, OTHER}
    assert len(warnings) == 1
    assert CHANNEL in warnings[0]


async def test_a_subscription_polls_at_once(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the subscription stands again after Redis was away, what was said meanwhile is polled for at once."""
    monkeypatch.setattr(changes, "POLL_PAUSE_SECONDS", 600.0)
    journal = Journal()
    async with link_to(own_redis) as own, link_to(own_redis) as link, ChangeFeed(own, journal.poll, lambda _: None):
        await until_heard(link, [KEY], 1)
        await eventually(lambda: len(journal.asked) == 2)
        own_redis.kill()
        await eventually(lambda: not own.is_up)
        own_redis.start()
        await eventually(lambda: len(journal.asked) == 3)
        await until_heard(link, [OTHER], 1)


# --- polling ---


async def test_the_first_mark_doubts_what_was_before(quick: None) -> None:
    """The first poll that succeeds makes whatever was read before it stale; from then on marks follow each other."""
    journal = Journal()
    applied: list[Change] = []
    async with ChangeFeed(None, journal.poll, applied.extend) as feed:
        await eventually(lambda: feed.last_poll_ok_at is not None)
        assert applied == [ALL]
        assert feed.last_change_at is None
        journal.changes = [KEY]
        await eventually(lambda: feed.last_change_at is not None)
        assert applied == [ALL, KEY]
    assert journal.asked == [None, *range(1, len(journal.asked))]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_lost_changes_doubt_everything(warnings: list[str], quick: None) -> None:
    """When the database cannot say what changed, everything in memory is in doubt, and the log says so."""
    journal = Journal()
    applied: list[Change] = []
    async with ChangeFeed(None, journal.poll, applied.extend):
        await eventually(lambda: applied == [ALL])
        journal.is_lost = True
        await eventually(lambda: applied == [ALL, ALL])
    assert [line for line in warnings if "lost" in line]


async def test_an_outage_forgets_nothing(warnings: list[str], quick: None) -> None:
    """Polls that fail are repeated from the same mark, and one warning tells of the whole outage."""
    journal = Journal()
    applied: list[Change] = []
    async with ChangeFeed(None, journal.poll, applied.extend) as feed:
        await eventually(lambda: applied == [ALL])
        journal.is_away = True
        journal.changes = [KEY, OTHER]
        polls, last_ok = len(journal.asked), feed.last_poll_ok_at
        await eventually(lambda: len(journal.asked) >= polls + 4)
        assert len(set(journal.asked[polls + 1 :])) == 1
        assert feed.last_poll_ok_at == last_ok
        journal.is_away = False
        await eventually(lambda: applied == [ALL, KEY, OTHER])
        assert feed.last_poll_ok_at != last_ok
    assert len(warnings) == 1


async def test_a_poll_that_hangs() -> None:
    """A poll that never ends is given up after a second, and the next one takes its place."""
    asked: list[int | None] = []

    async def poll(mark: int | None) -> tuple[int, list[Change], bool]:
        asked.append(mark)
        if len(asked) == 1:
            await asyncio.Event().wait()
        return 1, [], False

    applied: list[Change] = []
    async with ChangeFeed(None, poll, applied.extend):
        await eventually(lambda: applied == [ALL])
    assert asked == [None, None]
