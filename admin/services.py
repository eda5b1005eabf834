"""What the admin app's requests are served with: database, Redis, access; opened in order, closed in reverse."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, Literal, Self, cast

from admin.access import Access
from app.core.changes import feed as changes
from app.core.changes.roster import Roster
from app.core.data import idempotency
from app.core.data.store import Store, StoreUnavailable
from app.core.limits.gauge import Gauge
from app.core.model import Change
from app.core.process.settings import AdminSettings
from app.core.redis.link import RedisLink, RedisUnavailable

FIRST_LOOK_SECONDS: Final = 2.0
PURGE_SECONDS: Final = 3_600.0
State = Literal["ok", "unreachable", "not configured", "unknown"]


class Services:
    """`app.ctx.services`. An async context manager; neither PostgreSQL nor Redis need to be there."""

    def __init__(self, settings: AdminSettings) -> None:
        self.settings = settings
        self.is_draining = False
        self.access = Access(settings.admin_tokens)
        self.database = Store(cast(str, settings.database_url), name="gateway-admin")
        self.redis = RedisLink(settings.redis, name="admin") if settings.redis else None
        self.running: set[asyncio.Task[Any]] = set()
        """Work that goes on when its client hangs up."""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.database)
        if self.redis is not None:
            await self._stack.enter_async_context(self.redis)
        await self._first_look()
        self._stack.push_async_callback(_cancel, asyncio.create_task(self._purge()))
        self._stack.push_async_callback(self._finish)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def publish(self, told: Sequence[Change]) -> int | None:
        """Tells the gateways: how many workers heard it; None when Redis could not tell them."""
        return await changes.publish(self.redis, told) if self.redis is not None else None

    @property
    def roster(self) -> Roster:
        """The gateway workers. Raises RedisUnavailable when no Redis is configured."""
        return Roster(self._link)

    @property
    def gauge(self) -> Gauge:
        """The buckets. Raises RedisUnavailable when no Redis is configured."""
        return Gauge(self._link)

    @property
    def _link(self) -> RedisLink:
        if self.redis is None:
            raise RedisUnavailable("no Redis is configured", sent=False)
        return self.redis

    async def _first_look(self) -> None:
        """Gives a database that is there the time to say so before we serve; one that is away delays us little."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                while self.database_state == "unknown":  # noqa: ASYNC110 -- the database has no event for its failures
                    await asyncio.sleep(0.01)

    async def _finish(self) -> None:
        await asyncio.gather(*self.running, return_exceptions=True)

    async def _purge(self) -> None:
        while True:
            with contextlib.suppress(StoreUnavailable):
                await idempotency.purge(self.database.run)
            await asyncio.sleep(PURGE_SECONDS)

    # --- what the health endpoints tell ---

    @property
    def database_state(self) -> State:
        if self.database.is_up:
            return "ok"
        return "unreachable" if self.database.last_error is not None else "unknown"

    def checks(self) -> dict[str, State]:
        """The dependencies as they are now."""
        if self.redis is None:
            return {"database": self.database_state, "redis": "not configured"}
        return {"database": self.database_state, "redis": "ok" if self.redis.is_up else "unreachable"}

    @property
    def is_ready(self) -> bool:
        """Whether the database was reached at least once, and we are not leaving."""
        return self.database.ever_up and not self.is_draining


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
