"""How soon a change in the database reaches what a gateway answers, with every part as in production."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import LiteralString

import pytest

from app.core.changes.feed import CHANNEL, ChangeFeed, publish
from app.core.data.store import Store
from app.core.errors import AuthenticationUnavailable, RevokedKey
from app.core.keys.credential import digest, mint, refusal
from app.core.keys.keyring import UNKNOWN, KeyRing
from app.core.keys.lookups import Lookups
from app.core.model import PLANS, Change, Credential, Limits, RedisAddress
from app.core.redis.link import RedisLink
from tests.core.relay import Relay
from tests.eventually import eventually
from tests.tenants import add_key, add_organization, sql
from tools.embedded import RedisServer

TOLD_SECONDS = 1.0
UNTOLD_SECONDS = 5.0


class Tenant:
    """An organization with one key, changed by plain SQL as another program would."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.key = mint("test").encode()
        add_organization(url)
        self.key_id = add_key(url)
        self.rekey(self.key)

    def rekey(self, key: bytes) -> None:
        """Makes `key` the one that works."""
        sql(self.url, "UPDATE api_keys SET key_digest = %s", digest(key).hex())

    def revoke(self) -> None:
        sql(self.url, "UPDATE api_keys SET revoked_at = now(), revoked_reason = 'test'")

    @property
    def change(self) -> Change:
        return Change("key", self.key_id)


@asynccontextmanager
async def gateway(url: str, redis: RedisServer | None = None) -> AsyncIterator[KeyRing]:
    """What one worker has: a store, a ring, a feed, and a link of the feed's own."""
    async with AsyncExitStack() as parts:
        store = await parts.enter_async_context(Store(url, name="gateway"))
        lookups = Lookups(store.credentials_by_digests)
        ring = KeyRing(lookups.load, store.credentials_by_digests, {}, 900, is_back=lambda: store.is_up)
        await parts.enter_async_context(ring)
        link = await parts.enter_async_context(link_to(redis)) if redis is not None else None
        await parts.enter_async_context(ChangeFeed(link, store.changes_after, ring.apply))
        yield ring


async def subscribed(redis: RedisServer, count: int) -> None:
    """Until so many feeds hear what is published: a subscription takes a moment to stand."""
    wanted = f":{count}\r\n".encode()
    await eventually(lambda: redis.command("PUBSUB", "NUMSUB", CHANNEL).endswith(wanted))


def link_to(redis: RedisServer) -> RedisLink:
    return RedisLink(RedisAddress("127.0.0.1", redis.port), name="feed")


async def ask(ring: KeyRing, key: bytes) -> Credential:
    found = ring.find(key) or await ring.fetch(key)
    assert isinstance(found, Credential)
    return found


async def accept(ring: KeyRing, tenant: Tenant) -> None:
    """Until the key is accepted from memory, past the doubt of the first mark."""
    async with asyncio.timeout(15):
        while not isinstance(ring.find(tenant.key), Credential):
            with contextlib.suppress(AuthenticationUnavailable):  # the store may not have connected yet
                await ring.fetch(tenant.key)
            await asyncio.sleep(0.05)


async def seconds_until_refused(ring: KeyRing, tenant: Tenant, seconds: float) -> float:
    """How long a client that asks all the time is still let in."""
    began = time.monotonic()
    await eventually(lambda: not isinstance(ring.find(tenant.key), Credential), seconds)
    assert isinstance(refusal(await ask(ring, tenant.key), time.time()), RevokedKey)
    return time.monotonic() - began


@pytest.fixture
def tenant(database_url: str) -> Tenant:
    return Tenant(database_url)


async def test_told(tenant: Tenant, redis_url: str, redis_server: RedisServer) -> None:
    """With Redis there, a revoked key is refused by every gateway within a second; it takes milliseconds."""
    async with (
        gateway(tenant.url, redis_server) as first,
        gateway(tenant.url, redis_server) as second,
        link_to(redis_server) as link,
    ):
        await accept(first, tenant)
        await accept(second, tenant)
        await subscribed(redis_server, 2)
        tenant.revoke()
        assert await publish(link, [tenant.change]) == 2
        for ring in (first, second):
            assert await seconds_until_refused(ring, tenant, TOLD_SECONDS) < TOLD_SECONDS


@pytest.mark.parametrize("hurt", [RedisServer.kill, RedisServer.freeze])
async def test_redis_away(tenant: Tenant, own_redis: RedisServer, hurt: Callable[[RedisServer], None]) -> None:
    """With Redis dead or hung, a revoked key is refused within five seconds all the same."""
    async with gateway(tenant.url, own_redis) as ring, link_to(own_redis) as link:
        await accept(ring, tenant)
        hurt(own_redis)
        tenant.revoke()
        assert await publish(link, [tenant.change]) is None
        assert await seconds_until_refused(ring, tenant, UNTOLD_SECONDS) < UNTOLD_SECONDS


@pytest.mark.parametrize(
    ("statement", "is_in_force"),
    [
        ("UPDATE api_keys SET expires_at = now()", lambda found: found.has_expired(time.time())),
        ("UPDATE organizations SET active = false", lambda found: not found.organization.active),
        ("UPDATE organizations SET tier = 'premium'", lambda found: found.organization.limits == PLANS["premium"]),
        (
            "INSERT INTO organization_limits SELECT id, 7, 70, 0 FROM organizations",
            lambda found: found.organization.limits == Limits(7, 70, 0),
        ),
        (
            "UPDATE plans SET per_minute = 123 WHERE tier = 'basic'",
            lambda found: found.organization.limits.per_minute == 123,
        ),
    ],
    ids=["expiry", "activity", "tier", "limits", "plan"],
)
async def test_untold(tenant: Tenant, statement: LiteralString, is_in_force: Callable[[Credential], bool]) -> None:
    """Whatever is changed, by hand and without a word to anyone, is in force within five seconds."""
    async with gateway(tenant.url) as ring:
        await accept(ring, tenant)
        sql(tenant.url, statement)
        began = time.monotonic()
        while not is_in_force(await ask(ring, tenant.key)):
            assert time.monotonic() - began < UNTOLD_SECONDS
            await eventually(lambda: ring.find(tenant.key) is None, UNTOLD_SECONDS)


async def test_appeared_untold(tenant: Tenant) -> None:
    """A key that was refused as unknown works within five seconds of its appearance, though nobody said a word."""
    async with gateway(tenant.url) as ring:
        await accept(ring, tenant)
        other = mint("test").encode()
        assert await ring.fetch(other) is UNKNOWN
        began = time.monotonic()
        tenant.rekey(other)
        await eventually(lambda: ring.find(other) is None, UNTOLD_SECONDS)
        assert isinstance(await ring.fetch(other), Credential)
        assert time.monotonic() - began < UNTOLD_SECONDS
        assert await ring.fetch(tenant.key) is UNKNOWN, "the digest that it had before"


async def test_committed_while_out_of_reach(tenant: Tenant, redis_url: str, redis_server: RedisServer) -> None:
    """A revocation committed while the gateway could not reach the database holds as soon as it can again, unaided.

    Until then the key works from memory: nobody could have told the gateway.
    """
    async with Relay(tenant.url) as relay, gateway(relay.url, redis_server) as ring:
        await accept(ring, tenant)
        await relay.cut()
        tenant.revoke()
        assert refusal(await ask(ring, tenant.key), time.time()) is None
        with pytest.raises(AuthenticationUnavailable):
            await ring.fetch(mint("test").encode())
        relay.mend()
        await seconds_until_refused(ring, tenant, UNTOLD_SECONDS)


async def test_told_while_the_database_is_out_of_reach(
    tenant: Tenant, redis_url: str, redis_server: RedisServer
) -> None:
    """A revocation that Redis tells of is not outlived by memory because the database is away: that key gets a 503."""
    async with Relay(tenant.url) as relay, gateway(relay.url, redis_server) as ring, link_to(redis_server) as link:
        await accept(ring, tenant)
        await subscribed(redis_server, 1)
        await relay.cut()
        tenant.revoke()
        assert await publish(link, [tenant.change]) == 1
        await eventually(lambda: ring.find(tenant.key) is None, TOLD_SECONDS)
        with pytest.raises(AuthenticationUnavailable):
            await ring.fetch(tenant.key)


async def test_flushed_while_the_database_is_out_of_reach(
    tenant: Tenant, redis_url: str, redis_server: RedisServer
) -> None:
    """An operator's flush during an outage of the database does not lock out known keys."""
    async with Relay(tenant.url) as relay, gateway(relay.url, redis_server) as ring, link_to(redis_server) as link:
        await accept(ring, tenant)
        await subscribed(redis_server, 1)
        await relay.cut()
        assert await publish(link, [Change("all")]) == 1
        await eventually(lambda: ring.find(tenant.key) is None, TOLD_SECONDS)
        assert refusal(await ask(ring, tenant.key), time.time()) is None
