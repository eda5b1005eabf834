"""Requests that wait for Redis, gathered by organization, and when they are sent: group commit, without a timer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Final

from app.core.limits.group import Group, Waiter
from app.core.model import Organization, Verdict

__all__ = ["Group", "Waiter", "Waiting"]

BATCHES_IN_FLIGHT_MAX: Final = 2
ORGANIZATIONS_A_BATCH_MAX: Final = 64


class Waiting:
    """Calls `send` with a batch of groups on the next turn of the loop, or as soon as one of two batches has returned.

    The next turn is the one after the loop has looked at its sockets once more.

    `send` gives every waiter its result; it is a coroutine, or returns a future that is done when all have it. A batch
    is nobody's: a request that is cancelled leaves its place in it.
    """

    def __init__(self, send: Callable[[list[Group]], Awaitable[None]]) -> None:
        self._send = send
        # By identity: an organization is one object in the key ring, and hashing its limits is the dearest part.
        self._groups: dict[int, Group] = {}
        self._is_flush_due = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._in_flight: dict[asyncio.Future[None], list[Group]] = {}
        self._drained: list[asyncio.Future[None]] = []

    def join(self, organization: Organization) -> asyncio.Future[Verdict | None]:
        """The future of one request's verdict; None means that there is none to be had."""
        waiter: asyncio.Future[Verdict | None] = self.loop.create_future()
        self.enlist(organization, waiter)
        return waiter

    def enlist(self, organization: Organization, waiter: Waiter) -> None:
        """The same for a waiter of the caller's own."""
        key = id(organization)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(organization)
        group.waiters.append(waiter)
        if not self._is_flush_due and len(self._in_flight) < BATCHES_IN_FLIGHT_MAX:
            self._is_flush_due = True
            self.loop.call_soon(self._wait_a_turn)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Asked for once: in Python 3.11 the question is a system call."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def drain(self) -> asyncio.Future[None]:
        """Done when nobody waits any more."""
        drained: asyncio.Future[None] = self.loop.create_future()
        self._drained.append(drained)
        self._flush()
        self._tell_drained()
        return drained

    def _tell_drained(self) -> None:
        if self._groups or self._in_flight:
            return
        for drained in self._drained:
            if not drained.done():
                drained.set_result(None)
        self._drained.clear()

    def _wait_a_turn(self) -> None:
        # What is called soon runs before the loop looks at its sockets again. Those that are readable by now wait for
        # the same answer: with 32 requests under way a batch carries 17 of them instead of 8 (docs/performance.md).
        self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        while self._groups and len(self._in_flight) < BATCHES_IN_FLIGHT_MAX:
            batch = self._next_batch()
            if batch:
                sent = self._begin(batch)
                self._in_flight[sent] = batch
                sent.add_done_callback(self._returned)

    def _begin(self, batch: list[Group]) -> asyncio.Future[None]:
        loop = self.loop
        try:
            return asyncio.ensure_future(self._send(batch), loop=loop)
        except Exception as error:  # noqa: BLE001 - told by `_returned`, as what is raised later
            failed: asyncio.Future[None] = loop.create_future()
            failed.set_exception(error)
            return failed

    def _next_batch(self) -> list[Group]:
        """At most 64 organizations, without the requests whose clients have left meanwhile: those count for nothing."""
        keys = list(islice(self._groups, ORGANIZATIONS_A_BATCH_MAX))
        batch = [self._groups.pop(key) for key in keys]
        for group in batch:
            group.waiters = [waiter for waiter in group.waiters if not waiter.done()]
        return [group for group in batch if group.waiters]

    def _returned(self, sent: asyncio.Future[None]) -> None:
        for group in self._in_flight.pop(sent):
            group.settle(None)  # a request must not hang on a bug of ours, nor on the end of the loop
        if not sent.cancelled() and (failure := sent.exception()) is not None:
            self.loop.call_exception_handler({"message": "a batch failed", "exception": failure})
        self._flush()
        self._tell_drained()
