from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import cache

import pytest

from app.core.limits.bucket import Bucket, verdict
from app.core.limits.waiting import Group, Waiting
from app.core.model import Limits, Organization, Verdict
from tests.eventually import eventually

LIMITS = Limits(per_minute=10, per_day=100, burst=0)
VERDICT = verdict(Bucket.full(LIMITS, 0), LIMITS, 0)


class Sender:
    """Stands for Redis: keeps every batch until it is released."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[str, int]]] = []
        self.released = asyncio.Event()

    async def __call__(self, batch: list[Group]) -> None:
        self.batches.append([(group.organization.id, len(group.waiters)) for group in batch])
        await self.released.wait()
        for group in batch:
            for waiter in group.waiters:
                if not waiter.done():
                    waiter.set_result(VERDICT)


def join(waiting: Waiting, *ids: str) -> list[asyncio.Future[Verdict | None]]:
    return [waiting.join(organization(id_)) for id_ in ids]


@cache
def organization(id_: str) -> Organization:
    """One object for each, as in the key ring."""
    return Organization(id_, "basic", LIMITS)


async def a_turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_requests_of_one_turn_share_a_batch_and_later_ones_gather() -> None:
    """One turn's requests leave together; with two batches under way the rest wait together for one to return."""
    sender = Sender()
    waiting = Waiting(sender)
    waiters = join(waiting, "a", "b", "a")
    await a_turn()
    waiters += join(waiting, "a")
    await a_turn()
    for id_ in ("c", "a", "c"):
        waiters += join(waiting, id_)
        await a_turn()
    assert sender.batches == [[("a", 2), ("b", 1)], [("a", 1)]]
    sender.released.set()
    assert await asyncio.gather(*waiters) == [VERDICT] * 7
    assert sender.batches[2:] == [[("c", 2), ("a", 1)]]
    await waiting.drain()


async def test_a_batch_has_64_organizations_at_most() -> None:
    """The 65th organization of a turn goes with the next batch."""
    sender = Sender()
    waiting = Waiting(sender)
    waiters = join(waiting, *(str(number) for number in range(130)))
    await a_turn()
    assert [len(batch) for batch in sender.batches] == [64, 64]
    sender.released.set()
    await asyncio.gather(*waiters)
    assert [len(batch) for batch in sender.batches] == [64, 64, 2]


async def test_other_limits_are_another_question() -> None:
    """In the moment of a change of limits, requests under the old and under the new ones are asked for apart."""
    sender = Sender()
    sender.released.set()
    waiting = Waiting(sender)
    waiting.join(Organization("a", "basic", LIMITS))
    waiting.join(Organization("a", "premium", Limits(20, 100, 0)))
    await waiting.drain()
    assert sender.batches == [[("a", 1), ("a", 1)]]


async def test_who_left_before_the_batch_is_not_asked_for() -> None:
    """A request cancelled before its batch leaves counts for nothing; one cancelled later harms nobody else."""
    sender = Sender()
    waiting = Waiting(sender)
    early, late, other, alone = join(waiting, "a", "a", "a", "b")
    early.cancel()
    alone.cancel()
    await a_turn()
    late.cancel()
    sender.released.set()
    assert await other == VERDICT
    assert sender.batches == [[("a", 2)]]
    await waiting.drain()


async def broken(_: list[Group]) -> None:
    raise ZeroDivisionError


def broken_at_once(_: list[Group]) -> asyncio.Future[None]:
    raise ZeroDivisionError


@pytest.mark.parametrize("send", [broken, broken_at_once])
async def test_a_bug_leaves_nobody_hanging(send: Callable[[list[Group]], Awaitable[None]]) -> None:
    """When sending fails in a way nobody foresaw, every waiter learns that it gets no verdict, and the loop is told."""
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    waiting = Waiting(send)
    (waiter,) = join(waiting, "a")
    assert await asyncio.wait_for(waiter, 5) is None
    await waiting.drain()
    await a_turn()
    assert [type(failure) for failure in told] == [ZeroDivisionError]


async def test_what_the_next_look_at_the_sockets_brings_goes_along() -> None:
    """A batch leaves after the loop has looked at its sockets once more: what has arrived by then is part of it."""
    sender, loop = Sender(), asyncio.get_running_loop()
    waiting = Waiting(sender)
    waiters: list[asyncio.Future[Verdict | None]] = []
    (first, to_first), (second, to_second) = socket.socketpair(), socket.socketpair()

    def arrived(sock: socket.socket) -> None:
        loop.remove_reader(sock)
        waiters.extend(join(waiting, "a"))
        to_second.send(b"x")

    with first, second, to_first, to_second:
        for sock in (first, second):
            sock.setblocking(False)
            loop.add_reader(sock, arrived, sock)
        to_first.send(b"x")
        await eventually(lambda: sender.batches)
    assert sender.batches == [[("a", 2)]]
    sender.released.set()
    assert await asyncio.gather(*waiters) == [VERDICT] * 2
    await waiting.drain()
