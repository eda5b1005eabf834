"""Requests that wait together: what each of them is told."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from app.core.limits.bucket import Bucket, verdict
from app.core.limits.group import Group
from app.core.model import Limits, Organization, Verdict

LIMITS = Limits(per_minute=10, per_day=100, burst=5)
NOW = 1_000_000.5


class Waiter:
    """Keeps what it is told; one that is told twice fails."""

    def __init__(self, is_gone: bool) -> None:
        self.is_gone = is_gone
        self.told: list[Verdict | None] = []

    def done(self) -> bool:
        return self.is_gone or bool(self.told)

    def set_result(self, result: Verdict | None, /) -> None:
        assert not self.done()
        self.told.append(result)


def a_group(gone: list[bool]) -> tuple[Group, list[Waiter]]:
    group, waiters = Group(Organization("o", "basic", LIMITS)), [Waiter(is_gone) for is_gone in gone]
    group.waiters.extend(waiters)
    return group, waiters


@given(st.lists(st.booleans(), max_size=12), st.data())
def test_each_is_told_once_and_by_its_turn(gone: list[bool], data: st.DataObject) -> None:
    """The first `granted` see the minute fill up one by one, the rest are told the refusal, who has left nothing."""
    granted = data.draw(st.integers(0, min(len(gone), LIMITS.per_minute)))
    group, waiters = a_group(gone)
    slot, day = int(NOW // 60), int(NOW // 86_400)
    bucket = Bucket(slot, granted, 0, day, granted)
    refusal = verdict(bucket, LIMITS, NOW, "minute")
    group.admit(granted, bucket, NOW)
    group.settle(refusal, granted)
    for position, waiter in enumerate(waiters, 1):
        if waiter.is_gone:
            assert waiter.told == []
        elif position > granted:
            assert waiter.told == [refusal]
        else:
            (told,) = waiter.told
            assert told is not None
            assert (told.refused_by, told.mode) == (None, "redis")
            assert told == verdict(Bucket(slot, position, 0, day, position), LIMITS, NOW)


def test_settling_leaves_who_was_told_alone() -> None:
    """`settle` reaches only those who have no verdict yet, so that it may close every batch."""
    group, waiters = a_group([False, False, True, False])
    first = verdict(Bucket(0, 1, 0, 0, 1), LIMITS, NOW)
    waiters[0].set_result(first)
    group.settle(None)
    group.settle(first)
    assert [waiter.told for waiter in waiters] == [[first], [None], [], [None]]


async def test_futures_and_callbacks_wait_together() -> None:
    """A waiter that is called back and a future, cancelled or not, stand in one group in the order of their arrival."""
    group, (called,) = a_group([False])
    future: asyncio.Future[Verdict | None] = asyncio.get_running_loop().create_future()
    cancelled: asyncio.Future[Verdict | None] = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    group.waiters += [cancelled, future]
    group.admit(3, Bucket(int(NOW // 60), 3, 0, int(NOW // 86_400), 3), NOW)
    told = [called.told[0], future.result()]
    assert [each.remaining_minute for each in told if each is not None] == [9, 7]
