"""How much an organization may: asks Redis for the requests that wait together at once, or decides without it.

A request waits for Redis one deadline (50 ms) at most; while Redis is known to be away, none waits at all.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, Self

from app.core.errors import LimiterUnavailable
from app.core.limits.asking import Asking, FallbackMode
from app.core.limits.fallback import Fallback
from app.core.limits.tally import DEADLINE_SECONDS, Tally
from app.core.limits.watch import Watch
from app.core.model import Change, Organization, Verdict
from app.core.redis.link import RedisLink

__all__ = ["FallbackMode", "Limiter"]


class Limiter:
    """Admits or refuses requests; an async context manager over an entered `link` (None: no Redis is configured).

    `node` names this worker among all of them, `workers` is how many this machine runs. While Redis is away, `fallback`
    "local" decides by this worker's share, "open" admits all, "closed" raises. `clock` (unix seconds) serves only then.
    `decide_at_once`, `ask` and `look` are for callers that do not wait (asking.py). For metrics: `mode`, `is_exact`,
    `breaker_state`, `errors` by kind, and the `requests` and `batches` sent to Redis.
    """

    def __init__(
        self,
        link: RedisLink | None,
        *,
        node: str,
        workers: int,
        fallback: FallbackMode = "local",
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._without_redis: FallbackMode = "local" if link is None else fallback
        self._fallback = Fallback(workers, admits_all=self._without_redis == "open")
        self._watch: Watch | None = None
        tally: Tally | None = None
        if link is not None:
            tally = Tally(link, node=node, deadline_seconds=deadline_seconds, monotonic=monotonic)
            self._watch = Watch(link, tally, self._fallback, workers=workers, jitter=jitter, monotonic=monotonic)
        self._asking = Asking(self._watch, tally, self._fallback, self._without_redis, clock, monotonic)
        self.decide_at_once, self.ask, self.look = self._asking.decide_at_once, self._asking.ask, self._asking.look

    async def __aenter__(self) -> Self:
        if self._watch is not None:
            await self._watch.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._asking.waiting.drain()
        if self._watch is not None:
            await self._watch.__aexit__()

    async def admit(self, organization: Organization) -> Verdict:
        """Decides one request. Raises LimiterUnavailable only without Redis and with the fallback "closed".

        Touches Redis only when it is there and the answer is not known already (an empty bucket stays empty a while).
        """
        decided = self.decide_at_once(organization) or await self.wait(organization)
        if decided is None:
            raise LimiterUnavailable
        return decided

    def wait(self, organization: Organization) -> asyncio.Future[Verdict | None]:
        """What Redis says of one request, after `decide_at_once` did not; None where `admit` would raise."""
        return self._asking.waiting.join(organization)

    def apply(self, changes: Sequence[Change]) -> None:
        """Refusals that rest on what changed are not repeated from memory: a bucket may have been given back full."""
        for change in changes:
            if change.kind == "organization":
                self._asking.denials.forget(change.id)
            elif change.kind == "all":
                self._asking.denials.clear()

    @property
    def is_exact(self) -> bool:
        """Whether Redis decides, for all gateways together. False all the time when none is configured."""
        return self._watch is not None and self._watch.is_exact

    @property
    def mode(self) -> Literal["redis", "local", "open", "closed"]:
        return "redis" if self.is_exact else self._without_redis

    @property
    def breaker_state(self) -> Literal["closed", "open", "half-open"]:
        return "closed" if self._watch is None else self._watch.breaker_state

    @property
    def errors(self) -> Counter[str]:
        return Counter() if self._watch is None else self._watch.errors

    @property
    def requests(self) -> int:
        return self._asking.requests

    @property
    def batches(self) -> int:
        return self._asking.batches
