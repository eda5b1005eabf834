"""Invalidations and resets: what they leave in the database, and what they do not when something is missing."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

import pytest

from app.core.data.database import Connection, transaction
from app.core.data.operations import Operations
from app.core.data.records import Actor
from app.core.data.rules import NotFound
from app.core.limits.gauge import Gauge
from app.core.limits.tally import Ask, Tally
from app.core.model import PLANS, Change, Organization, RedisAddress
from app.core.redis.link import RedisLink, RedisUnavailable
from tests.tenants import ACME, add_key, add_organization, sql
from tools.embedded import RedisServer


class World:
    """The verbs on a database with one organization and one key; `told` is what the gateways would hear."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.told: list[Change] = []
        self.heard_by: int | None = 3
        add_organization(url)
        self.key_id = add_key(url)
        sql(url, "DELETE FROM changes")
        self.operations = Operations(self.transact, actor=Actor("ann", "192.0.2.7"), publish=self.publish)

    def transact(self) -> AbstractAsyncContextManager[Connection]:
        return transaction(self.url, name="test")

    async def publish(self, changes: Sequence[Change]) -> int | None:
        self.told.extend(changes)
        return self.heard_by

    def journal(self) -> list[tuple[str, str | None]]:
        return [(kind, ref) for kind, ref in sql(self.url, "SELECT kind, ref::text FROM changes ORDER BY id")]

    def audit(self) -> list[tuple[object, ...]]:
        return sql(self.url, "SELECT who, host(address), action, subject_id::text, before, after FROM audit_log")


@pytest.fixture
def world(database_url: str) -> World:
    return World(database_url)


@pytest.mark.parametrize("heard_by", [3, 0, None])
async def test_an_invalidation_is_told_and_written(world: World, heard_by: int | None) -> None:
    """Gateways hear of it at once, those that cannot read it in the journal, and people in the audit log."""
    world.heard_by = heard_by
    changes = [Change("key", world.key_id), Change("organization", ACME), Change("all")]
    for change in changes:
        assert await world.operations.invalidate(change) == heard_by
    assert world.told == changes
    assert world.journal() == [("key", world.key_id), ("organization", ACME), ("all", None)]
    assert world.audit()[0] == (
        "ann",
        "192.0.2.7",
        "cache.invalidate",
        world.key_id,
        None,
        {"kind": "key", "id": world.key_id},
    )
    assert len(world.audit()) == 3


@pytest.mark.parametrize("kind", ["key", "organization"])
async def test_an_invalidation_of_nothing(world: World, kind: str) -> None:
    """An id of nobody's is refused, told to nobody and written nowhere: it is a mistake of a person's."""
    with pytest.raises(NotFound):
        await world.operations.invalidate(Change(kind, str(uuid.uuid4())))  # type: ignore[arg-type]
    assert (world.told, world.journal(), world.audit()) == ([], [], [])


async def test_a_reset(world: World, redis_url: str, redis_server: RedisServer) -> None:
    """The bucket is full afterwards, the audit log knows how it was before, and gateways drop remembered refusals."""
    async with RedisLink(RedisAddress("127.0.0.1", redis_server.port), name="test") as link:
        assert await link.wait_up(5)
        await Tally(link, node="test", deadline_seconds=5).take([Ask(ACME, PLANS["basic"], 7)])
        gauge = Gauge(link)
        full, heard_by = await world.operations.reset_limits(ACME, gauge.live, gauge.reset)
        assert await gauge.live(Organization(ACME, "basic", PLANS["basic"])) == full
    assert (full.minute_used, full.daily_used, full.burst_remaining, heard_by) == (0, 0, 50, 3)
    used, nothing = {"minute_used": 7, "daily_used": 7}, {"minute_used": 0, "daily_used": 0}
    assert world.audit() == [("ann", "192.0.2.7", "organization.reset_limits", ACME, used, nothing)]
    assert world.told == [Change("organization", ACME)]


async def test_a_reset_without_redis(world: World, own_redis: RedisServer) -> None:
    """Without Redis nothing is reset, and nothing is written or told as if it had been."""
    async with RedisLink(RedisAddress("127.0.0.1", own_redis.port), name="test") as link:
        assert await link.wait_up(5)
        own_redis.kill()
        gauge = Gauge(link)
        with pytest.raises(RedisUnavailable):
            await world.operations.reset_limits(ACME, gauge.live, gauge.reset)
    assert (world.told, world.audit()) == ([], [])
