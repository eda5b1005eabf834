"""The organizations and keys of a scenario, made and changed as the admin app does it."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import click

from app.core.changes.feed import publish
from app.core.changes.roster import Roster
from app.core.data.database import transaction
from app.core.data.issuer import Issuer
from app.core.keys.credential import digest
from app.core.model import Change, Limits, RedisAddress
from app.core.redis.link import RedisLink, RedisRefusal, RedisUnavailable
from tools.storm.caller import Caller

ACTOR = "chaos"
LINK_SECONDS = 2.0
WARM_SECONDS = 20.0
MEETINGS = 64
"""Requests at once, on a connection each: a single one would go to whichever worker is idle, again and again."""
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Tenant:
    """One organization with one key."""

    key_id: str
    key: str = field(repr=False)


class Tenants:
    """Over the database at `url`; changes are told through the Redis on `redis_port`, when that answers."""

    def __init__(self, url: str, redis_port: int) -> None:
        self._transact = functools.partial(transaction, url, name=ACTOR)
        self._address = RedisAddress("127.0.0.1", redis_port)

    def new(self, limits: Limits) -> Tenant:
        """Raises StoreUnavailable."""

        async def make(issuer: Issuer) -> Tenant:
            organization = (await issuer.create_organization("chaos", "enterprise")).record
            await issuer.set_limits(organization.id, limits)
            issued = await issuer.create_key(organization.id, "chaos", "test")
            return Tenant(issued.record.id, issued.key)

        return self._run(make)

    def revoke(self, tenant: Tenant) -> None:
        """Raises StoreUnavailable."""
        self._run(lambda issuer: issuer.revoke_key(tenant.key_id, "chaos"))

    def warm(self, tenant: Tenant, ports: tuple[int, ...], workers: int) -> None:
        """Returns when all `workers` of the gateways at `ports` have the key in memory. Raises a ClickException."""
        deadline = time.monotonic() + WARM_SECONDS
        while asyncio.run(self._holders(tenant)) < workers:
            if time.monotonic() > deadline:
                raise click.ClickException("not every worker has met the key")
            asyncio.run(_meet(tenant, ports))

    async def _holders(self, tenant: Tenant) -> int:
        """How many workers have the key in memory. 0 when nobody can be asked."""
        async with RedisLink(self._address, name=ACTOR) as link:
            await link.wait_up(LINK_SECONDS)
            try:
                heard = await Roster(link).ask(digest(tenant.key.encode()))
            except (RedisUnavailable, RedisRefusal):
                return 0
        return sum(answer.holding.held_as == "cached" for answer in heard.answers)

    def _run(self, verb: Callable[[Issuer], Awaitable[Result]]) -> Result:
        async def run() -> Result:
            async with RedisLink(self._address, name=ACTOR) as link:

                async def tell(changes: Sequence[Change]) -> int | None:
                    return await publish(link, changes)

                return await verb(Issuer(self._transact, actor=ACTOR, publish=tell))

        return asyncio.run(run())


async def _meet(tenant: Tenant, ports: tuple[int, ...]) -> None:
    request = b"GET /api/users HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %b\r\n\r\n" % tenant.key.encode()
    caller = Caller(ports, is_kept=False)
    await asyncio.gather(*(caller.ask(request) for _ in range(MEETINGS)))
