"""What handlers work with: reading, changing and creating on behalf of one caller, one transaction each.

Once begun, a change runs to its end whatever becomes of the client's connection: a commit without its broadcast would
leave gateways to find out by themselves.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from sanic import HTTPResponse

from admin import answers
from admin.services import Services
from app.core.data import idempotency
from app.core.data.database import STATEMENT_SECONDS, TRANSACTION_SECONDS, Connection
from app.core.data.idempotency import Attempt, Kept, UnderWay
from app.core.data.issuer import Issuer
from app.core.data.operations import Operations
from app.core.data.records import Actor
from app.core.model import Change

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Repeat:
    """A request that creates, with its Idempotency-Key if it has one."""

    attempt: Attempt | None


@dataclass(frozen=True, slots=True)
class Created:
    """What a creation answers. `secret` is added to the body as `api_key` when there is one, and never kept."""

    body: dict[str, Any]
    fields: dict[str, str]
    secret: str | None = field(default=None, repr=False)
    has_secret: bool = False


class Desk:
    """One caller's way to the core's verbs. All methods raise StoreUnavailable, and rules.Refused by a rule's no."""

    def __init__(self, services: Services, actor: Actor) -> None:
        self.services = services
        self.actor = actor

    async def read(self, look: Callable[[Connection], Awaitable[T]]) -> T:
        """What `look` finds, in one transaction."""
        return await self._to_the_end(self._read(look))

    async def change(self, verb: Callable[[Issuer], Coroutine[Any, Any, T]]) -> T:
        """What `verb` makes of it: its transaction, then the broadcast."""
        name, address = self.actor
        database, publish = self.services.database, self.services.publish
        return await self._to_the_end(verb(Issuer(database.transaction, actor=name, address=address, publish=publish)))

    async def operate(self, verb: Callable[[Operations], Coroutine[Any, Any, T]]) -> T:
        """What `verb` does to the running gateways."""
        services = self.services
        operations = Operations(services.database.transaction, actor=self.actor, publish=services.publish)
        return await self._to_the_end(verb(operations))

    async def create(
        self, repeat: Repeat, verb: Callable[[Issuer], Awaitable[T]], show: Callable[[T], Created]
    ) -> HTTPResponse:
        """201 with what `verb` made; under an Idempotency-Key seen before, 201 with what it had made then.

        A replay tells the gateways once more: whoever repeats a request did not hear the first answer, or its broadcast
        was not heard. Raises rules.Conflict for a key that belongs to another request, or to one that does not end.
        """
        return await self._to_the_end(self._create_once(repeat.attempt, verb, show))

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work)
        self.services.running.add(task)
        task.add_done_callback(self.services.running.discard)
        return await asyncio.shield(task)

    async def _read(self, look: Callable[[Connection], Awaitable[T]]) -> T:
        async with self.services.database.transaction() as connection:
            return await look(connection)

    async def _create_once(
        self, attempt: Attempt | None, verb: Callable[[Issuer], Awaitable[T]], show: Callable[[T], Created]
    ) -> HTTPResponse:
        """Waits for a first request under way longer than that one's transaction may last."""
        for _ in range(math.ceil(TRANSACTION_SECONDS / STATEMENT_SECONDS)):
            with suppress(UnderWay):
                return await self._create(attempt, verb, show)
        return await self._create(attempt, verb, show)

    async def _create(
        self, attempt: Attempt | None, verb: Callable[[Issuer], Awaitable[T]], show: Callable[[T], Created]
    ) -> HTTPResponse:
        async with self.services.database.transaction() as connection:
            kept = await idempotency.claim(connection, attempt) if attempt else None
            is_replay, secret = kept is not None, None
            if kept is None:
                made, kept = await self._make(connection, verb, show)
                secret = made.secret
                if attempt is not None:
                    await idempotency.keep(connection, attempt, kept)
        body = orjson.loads(kept.body) | {"heard_by": await self.services.publish(kept.changes)}
        if secret is not None:
            body["api_key"] = secret
        replayed = {"Idempotent-Replayed": "true"} if is_replay else {}
        return answers.json(body, kept.status, fields=kept.fields | replayed)

    async def _make(
        self, connection: Connection, verb: Callable[[Issuer], Awaitable[T]], show: Callable[[T], Created]
    ) -> tuple[Created, Kept]:
        """Runs the verb in the transaction that holds the claim; its changes are told after the commit."""
        changes: list[Change] = []

        async def note(told: Sequence[Change]) -> None:
            changes.extend(told)

        name, address = self.actor
        issuer = Issuer(lambda: nullcontext(connection), actor=name, address=address, publish=note)
        made = show(await verb(issuer))
        body = made.body | ({"api_key": None} if made.has_secret else {})
        return made, Kept(201, orjson.dumps(body), made.fields, changes)
