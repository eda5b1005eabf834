"""What people do to running gateways, as distinct from what they change in the data; audited all the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from app.core.data import ledger, rules
from app.core.data.database import Connection
from app.core.data.records import Actor
from app.core.model import Change, Organization, Verdict

NOTHING_USED: Final = {"minute_used": 0, "daily_used": 0}


class Operations:
    """On behalf of `actor`. Both raise rules.NotFound, or what `transact` raises when the database is away.

    `transact` opens a transaction, `publish` tells the gateways and returns how many heard it, None when Redis is away.
    """

    def __init__(
        self,
        transact: Callable[[], AbstractAsyncContextManager[Connection]],
        *,
        actor: Actor,
        publish: Callable[[Sequence[Change]], Awaitable[int | None]],
    ) -> None:
        self._transact = transact
        self._actor = actor
        self._publish = publish

    async def invalidate(self, change: Change) -> int | None:
        """Makes every gateway read the key, the organization's keys, or everything again before the next use.

        Returns how many workers heard it. The journal has it too, so those that could not be told learn of it.
        """
        async with self._transact() as connection:
            if change.kind == "key":
                await ledger.key(connection, change.id)
            if change.kind == "organization":
                await ledger.organization(connection, change.id)
            await ledger.announce(connection, change)
            what = {"kind": change.kind, "id": change.id or None}
            await ledger.note(connection, self._actor, "cache.invalidate", change.id or None, None, what)
        return await self._publish([change])

    async def reset_limits(
        self,
        organization_id: str,
        live: Callable[[Organization], Awaitable[Verdict]],
        reset: Callable[[str], Awaitable[None]],
    ) -> tuple[Verdict, int | None]:
        """Gives an organization's bucket back full. Returns it as it was then, and how many workers heard of it.

        Raises what `live` and `reset` raise without Redis; then nothing was reset, and the audit log says nothing.
        """
        unit_id = rules.unit_id(organization_id, "organization")
        async with self._transact() as connection:
            record = await ledger.organization(connection, unit_id)
            organization = record.as_organization()
            before = await live(organization)
            used = {"minute_used": before.minute_used, "daily_used": before.daily_used}
            await ledger.note(connection, self._actor, "organization.reset_limits", unit_id, used, NOTHING_USED)
            await reset(unit_id)  # last before the commit: Redis rolls nothing back
            full = await live(organization)
        return full, await self._publish([Change("organization", unit_id)])
