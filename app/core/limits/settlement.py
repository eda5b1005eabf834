"""What Redis is told when it is back: what it has forgotten, and what was admitted without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.core.limits.fallback import Debt, Fallback
from app.core.limits.tally import Answer, Outcome, Tally
from app.core.redis.link import RedisRefusal, RedisUnavailable

A_BATCH_MAX: Final = 64
"""Organizations whose debts, or last known buckets, are told at once."""
AWAY_CODES: Final = frozenset(
    {"OOM", "LOADING", "READONLY", "CLUSTERDOWN", "MISCONF", "NOAUTH", "NOPERM", "MASTERDOWN", "NOREPLICAS", "BUSY"}
    | {"TRYAGAIN", "MOVED", "NOSCRIPT", "LATE"}
)
"""Refusals by which Redis decides for nobody: it counts as away. Any other one is about a single organization's key."""


class Settlement:
    """Of one worker's Fallback with Redis. All raise RedisUnavailable, or the RedisRefusal that means the same."""

    def __init__(self, tally: Tally, fallback: Fallback) -> None:
        self._tally = tally
        self._fallback = fallback

    async def remind(self) -> None:
        """A Redis that came back empty gives nobody a second quota: it is told all that it had said to this worker."""
        known = self._fallback.recall()
        for at in range(0, len(known), A_BATCH_MAX):
            _raise_away(await self._tally.remind(known[at : at + A_BATCH_MAX]))

    async def push_owed(self) -> None:
        """Settles what is owed as this begins. More may be made meanwhile: the last debts leave as Redis takes over."""
        for _ in range(-(-self._fallback.indebted // A_BATCH_MAX)):
            await self.push(self.take_last())

    def take_last(self) -> list[Debt]:
        """The next batch of debts, to be pushed."""
        return self._fallback.take_debts(A_BATCH_MAX)

    async def push(self, debts: list[Debt]) -> None:
        """Settles `debts`; those that Redis could not be told stay owed, and the reason is raised."""
        if not debts:
            return
        try:
            outcomes = await self._tally.settle(debts)
        except RedisUnavailable:
            self._fallback.restore(debts)
            raise
        for debt, outcome in zip(debts, outcomes, strict=True):
            if isinstance(outcome, Answer):
                self._fallback.know(debt.organization_id, debt.limits, outcome.bucket)
        self._fallback.restore([debt for debt, outcome in zip(debts, outcomes, strict=True) if is_away(outcome)])
        _raise_away(outcomes)


def is_away(outcome: Outcome) -> bool:
    """Whether this outcome says that Redis decides for nobody now."""
    if isinstance(outcome, RedisRefusal):
        return outcome.code in AWAY_CODES
    return isinstance(outcome, RedisUnavailable)


def _raise_away(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, Exception) and is_away(outcome):
            raise outcome
