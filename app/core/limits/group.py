"""Requests of one organization that wait for Redis together, and how its answer is told to each of them. Pure."""

from __future__ import annotations

from typing import Protocol

from app.core.limits.bucket import Bucket, verdict
from app.core.model import Organization, Verdict


class Waiter(Protocol):
    """Who waits for a verdict: a future, or what is called back at once."""

    def done(self) -> bool:
        """Whether it has its verdict already, or has left."""

    def set_result(self, result: Verdict | None, /) -> None:
        """None: there is no verdict to be had. Must not raise."""


class Group:
    """Requests of one Organization (so under one set of limits), in the order of their arrival."""

    __slots__ = ("organization", "waiters")

    def __init__(self, organization: Organization) -> None:
        self.organization = organization
        self.waiters: list[Waiter] = []

    def admit(self, granted: int, bucket: Bucket, now: float) -> None:
        """The first `granted` are admitted, each being told what was used when its own turn came.

        `bucket` is the one after the last of them, `now` the clock that decided (unix seconds).
        """
        limits = self.organization.limits
        for position, waiter in enumerate(self.waiters[:granted], 1):
            if not waiter.done():
                waiter.set_result(verdict(bucket, limits, now, None, "redis", position - granted))

    def settle(self, decided: Verdict | None, first: int = 0) -> None:
        """Tells the same to all from the one at `first` on that have no verdict yet."""
        for waiter in self.waiters[first:]:
            if not waiter.done():
                waiter.set_result(decided)
