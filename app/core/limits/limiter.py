"""How much an organization may: asks Redis for all requests of one turn of the loop at once, or decides without it.

A request waits for Redis one deadline (50 ms) at most; while Redis is known to be away, none waits at all.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, Self

from app.core.errors import LimiterUnavailable
from app.core.limits.bucket import verdict
from app.core.limits.denials import Denials
from app.core.limits.fallback import Fallback
from app.core.limits.settlement import is_away
from app.core.limits.tally import DEADLINE_SECONDS, Answer, Ask, Outcome, Tally
from app.core.limits.waiting import Group, Waiter, Waiting
from app.core.limits.watch import Watch
from app.core.model import Change, Organization, Verdict
from app.core.redis.link import RedisLink

FallbackMode = Literal["local", "open", "closed"]


class Limiter:
    """Admits or refuses requests; an async context manager over an entered `link` (None: no Redis is configured).

    `node` names this worker among all of them, `workers` is how many this machine runs. While Redis is away, `fallback`
    "local" decides by this worker's share, "open" admits all, "closed" raises. `clock` (unix seconds) serves only then.
    For metrics: `mode`, `is_exact`, `breaker_state`, `errors` by kind, and the `requests` and `batches` sent to Redis.
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
        self.requests = 0
        self.batches = 0
        self._without_redis: FallbackMode = "local" if link is None else fallback
        self._clock = clock
        self._monotonic = monotonic
        self._fallback = Fallback(workers, admits_all=self._without_redis == "open")
        self._denials = Denials()
        self._waiting = Waiting(self._decide)
        self._watch: Watch | None = None
        if link is not None:
            self._tally = Tally(link, node=node, deadline_seconds=deadline_seconds, monotonic=monotonic)
            self._watch = Watch(link, self._tally, self._fallback, workers=workers, jitter=jitter, monotonic=monotonic)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        if self._watch is not None:
            await self._watch.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._waiting.drain()
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

    def decide_at_once(self, organization: Organization) -> Verdict | None:
        """`admit` as far as nobody needs to be asked; None: Redis is to be. Raises as `admit` does."""
        if self._watch is None or not self._watch.is_exact:
            return self._decide_alone(organization)
        return self._denials.find(organization, self._monotonic())

    def wait(self, organization: Organization) -> asyncio.Future[Verdict | None]:
        """What Redis says of one request, after `decide_at_once` did not; None where `admit` would raise."""
        return self._waiting.join(organization)

    def ask(self, organization: Organization, waiter: Waiter) -> None:
        """The same for a waiter that is called back."""
        self._waiting.enlist(organization, waiter)

    def apply(self, changes: Sequence[Change]) -> None:
        """Refusals that rest on what changed are not repeated from memory: a bucket may have been given back full."""
        for change in changes:
            if change.kind == "organization":
                self._denials.forget(change.id)
            elif change.kind == "all":
                self._denials.clear()

    def look(self, organization: Organization) -> Verdict:
        """What to announce beside LimiterUnavailable: this worker's share, of which nothing was taken."""
        return self._fallback.look(organization, self._clock())

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

    def _decide(self, batch: list[Group]) -> asyncio.Future[None]:
        """Gives every request of the batch its verdict: Redis's, or this worker's own where Redis gave none."""
        done: asyncio.Future[None] = self._loop.create_future()
        watch = self._watch
        if watch is None or not watch.is_exact:  # Redis went away between the requests' arrival and this turn
            for group in batch:
                self._stand_in(group)
            done.set_result(None)
            return done
        asks = [Ask(group.organization.id, group.organization.limits, len(group.waiters)) for group in batch]
        self.batches += 1
        for ask in asks:
            self.requests += ask.want
        self._tally.begin(asks, partial(self._decided, watch, batch, self._monotonic(), done))
        return done

    def _decided(
        self, watch: Watch, batch: list[Group], sent: float, done: asyncio.Future[None], outcomes: list[Outcome]
    ) -> None:
        late_seconds = self._monotonic() - sent - self._tally.deadline_seconds
        try:
            for group, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Answer):
                    self._grant(group, outcome, sent)
                else:
                    self._stand_in(group, owing=is_away(outcome))
            watch.judge(outcomes, late_seconds)
        except Exception as error:  # noqa: BLE001 - told by who waits for `done`
            done.set_exception(error)
        else:
            done.set_result(None)

    def _grant(self, group: Group, answer: Answer, sent: float) -> None:
        organization, granted = group.organization, answer.granted
        self._fallback.know(organization.id, organization.limits, answer.bucket)
        refused = self._refuse(organization, answer, sent) if granted < len(group.waiters) else None
        group.admit(granted, answer.bucket, answer.now)
        if refused is not None:
            group.settle(refused, granted)

    def _refuse(self, organization: Organization, answer: Answer, sent: float) -> Verdict:
        bucket, limits = answer.bucket, organization.limits
        refused = verdict(bucket, limits, answer.now, bucket.refusal(limits) or "minute")
        self._denials.note(organization, refused, sent, answer.now)
        return refused

    def _stand_in(self, group: Group, *, owing: bool = True) -> None:
        for waiter in group.waiters:
            if not waiter.done():
                closed = self._without_redis == "closed"
                waiter.set_result(None if closed else self._decide_alone(group.organization, owing=owing))

    def _decide_alone(self, organization: Organization, *, owing: bool = True) -> Verdict:
        if self._without_redis == "closed":
            raise LimiterUnavailable
        return self._fallback.decide(organization, self._clock(), owing=owing and self._watch is not None)
