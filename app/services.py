"""What a worker's requests are served with: the wired parts of the core, opened in order, closed in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from loguru import logger

from app import descriptors
from app.core.changes.feed import ChangeFeed
from app.core.changes.presence import Presence
from app.core.changes.presence_message import Worker
from app.core.data.store import Store, StoreUnavailable
from app.core.keys.credential import digest
from app.core.keys.failed_keys import FailedKeys
from app.core.keys.keyring import KeyRing
from app.core.keys.lookups import Lookups
from app.core.keys.static_key import StaticKey
from app.core.keys.usage import UseRecorder
from app.core.limits.limiter import Limiter
from app.core.model import PLANS, Change, Credential, Organization
from app.core.process.access import access_line, console_line
from app.core.process.duration import short
from app.core.process.settings import GatewaySettings
from app.core.process.version import VERSION
from app.core.redis.link import RedisLink
from app.core.relay import delivery
from app.core.relay.balancer import Balancer
from app.core.relay.outbox import Outbox
from app.core.relay.routing import Router
from app.core.relay.upstream import Upstream
from app.occupancy import Occupancy
from app.tunnels import Tunnels

if TYPE_CHECKING:
    from app.core.relay.probes import Probes

FIRST_LOOK_SECONDS: Final = 2.0
PRUNE_SECONDS: Final = 3_600.0
State = Literal["ok", "unreachable", "not configured", "unknown"]


class Services:
    """`app.ctx` of the public app: settings, router, ring, limiter, upstream, tunnels, uses. A context manager."""

    def __init__(self, settings: GatewaySettings, write: Callable[[bytes], None]) -> None:
        self.settings = settings
        self.is_draining = False
        self.since = time.time()
        self.node = f"{socket.gethostname()}:{os.getpid()}"
        self.balancers = [
            Balancer(name, targets, connections_max=settings.backend_connections_max, tell=delivery.tell)
            for name, targets in settings.backends.items()
        ]
        self.router = Router({balancer.name: balancer for balancer in self.balancers})
        self.write = write
        self.access_line = access_line if settings.log_format == "json" else console_line
        self.occupancy = _occupancy(settings)
        self.store = Store(settings.database_url, name="gateway") if settings.database_url else None
        self.redis = RedisLink(settings.redis, name="limits") if settings.redis else None
        self.feed_redis = RedisLink(settings.redis, name="changes") if settings.redis else None
        self.outbox = Outbox(asyncio.get_running_loop())
        self.upstream = Upstream(
            connect_seconds=settings.backend_connect_seconds,
            idle_seconds=settings.backend_idle_seconds,
            deadline_seconds=settings.backend_deadline_seconds,
            outbox=self.outbox,
        )
        store = self.store
        self.ring = KeyRing(
            Lookups(store.credentials_by_digests).load if store else None,
            store.credentials_by_digests if store else None,
            static_credentials(settings.static_keys),
            settings.key_ttl_seconds,
            is_back=lambda: store is not None and store.is_up,
        )
        self.failed_keys = FailedKeys()
        self.tunnels = Tunnels(self.ring, settings.tunnel_idle_seconds)
        self.uses = UseRecorder(store.record_use) if store else UseRecorder(_forget)
        self.feed: ChangeFeed[Any] = ChangeFeed(self.feed_redis, store.changes_after if store else None, self._apply)
        self.limiter = Limiter(
            self.redis,
            node=self.node,
            workers=settings.workers * settings.rate_limit_nodes,
            fallback=settings.rate_limit_fallback,
        )
        self.presence = (
            Presence(self.redis, self._describe, self.ring.holding, node=self.node) if self.redis is not None else None
        )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        enter = self._stack.enter_async_context
        await enter(self.upstream)
        if self.settings.backend_health_path is not None:
            await enter(_probes(self.balancers, self.settings.backend_health_path))
        if self.store is not None:
            await enter(self.store)
            await self._first_look(lambda: self.store_state != "unknown")
            self._stack.push_async_callback(_cancel, asyncio.create_task(self._prune(self.store)))
        await enter(self.uses)
        logger.info(f"✅ Initialized API key cache (TTL: {short(self.settings.key_ttl_seconds)})")
        await enter(self.ring)
        await enter(self.tunnels)
        for link in (self.redis, self.feed_redis):
            if link is not None:
                await enter(link)
        await enter(self.feed)
        await enter(self.limiter)
        if self.presence is not None:
            await enter(self.presence)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _first_look(self, is_known: Callable[[], bool]) -> None:
        """Gives a dependency that is there the time to say so before we serve; one that is away delays us little."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                while not is_known():  # noqa: ASYNC110 - what is asked about signals nothing
                    await asyncio.sleep(0.01)

    def _apply(self, changes: Sequence[Change]) -> None:
        self.ring.apply(changes)
        self.limiter.apply(changes)

    def _describe(self) -> Worker:
        return Worker(self.node, VERSION, self.since, len(self.ring), self.feed.last_change_at)

    async def _prune(self, store: Store) -> None:
        while True:
            await asyncio.sleep(PRUNE_SECONDS)
            with contextlib.suppress(StoreUnavailable):
                await store.prune_changes()

    # --- what the health endpoints tell ---

    @property
    def store_state(self) -> State:
        if self.store is None:
            return "not configured"
        if self.store.is_up:
            return "ok"
        return "unreachable" if self.store.last_error is not None else "unknown"

    @property
    def redis_state(self) -> State:
        if self.redis is None:
            return "not configured"
        return "ok" if self.limiter.is_exact else "unreachable"  # a full or slow one is no more use than none

    def checks(self) -> dict[str, State]:
        """The dependencies as they are now."""
        return {"database": self.store_state, "redis": self.redis_state}

    def targets(self) -> dict[str, list[dict[str, Any]]]:
        """Each service's targets as this worker sees them, by labels that say nothing of where they are."""
        return {balancer.name: balancer.describe() for balancer in self.balancers}

    @property
    def can_check_keys(self) -> bool:
        """Whether keys can be told apart: no database is wanted, or it was reached at least once."""
        return self.store is None or self.store.ever_up


def _occupancy(settings: GatewaySettings) -> Occupancy:
    """The bounds as set, or in the same proportion what the file descriptors have room for."""
    wanted = settings.connections_max
    possible = min(wanted, descriptors.connections_possible())
    if possible < wanted and "connections_max" in settings.model_fields_set:  # who set nothing misses nothing
        logger.warning(f"CONNECTIONS_MAX is {wanted}, but the limit of open files has room for {possible}")
    per_address = max(1, settings.connections_per_address_max * possible // wanted)
    return Occupancy(possible, per_address, settings.trusted_proxies.trusts)


def _probes(balancers: Sequence[Balancer], path: str) -> Probes:
    from app.core.relay.probes import Probes  # httpx: 60 ms and 10 MB, for those only who want it

    return Probes(balancers, path)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _forget(used: object) -> None:
    return None


def static_credentials(keys: tuple[StaticKey, ...]) -> dict[bytes, Credential]:
    """VALID_API_KEYS by digest. Keys of one organization and tier share one Organization."""
    organizations = {
        (key.organization_id, key.tier): Organization(key.organization_id, key.tier, PLANS[key.tier]) for key in keys
    }
    return {digest(key.key): Credential(None, organizations[key.organization_id, key.tier]) for key in keys}
