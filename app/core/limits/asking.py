"""The limiter's part that waits for nothing: decides at once where it can, gathers the rest, tells what Redis said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Literal

from app.core.errors import LimiterUnavailable
from app.core.limits.bucket import verdict
from app.core.limits.denials import Denials
from app.core.limits.fallback import Fallback
from app.core.limits.group import Group, Waiter
from app.core.limits.question import Answer, Ask, Outcome
from app.core.limits.settlement import is_away
from app.core.limits.tally import Tally
from app.core.limits.waiting import Waiting
from app.core.limits.watch import Watch
from app.core.model import Organization, Verdict

FallbackMode = Literal["local", "open", "closed"]


class Asking:
    """`watch` and `tally` are None where no Redis is configured. Clocks as the Limiter's."""

    __slots__ = (
        "_clock",
        "_fallback",
        "_monotonic",
        "_tally",
        "_watch",
        "_without_redis",
        "batches",
        "denials",
        "requests",
        "waiting",
    )

    def __init__(
        self,
        watch: Watch | None,
        tally: Tally | None,
        fallback: Fallback,
        without_redis: FallbackMode,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._watch = watch
        self._tally = tally
        self._fallback = fallback
        self._without_redis = without_redis
        self._clock = clock
        self._monotonic = monotonic
        self.denials = Denials()
        self.waiting = Waiting(self._decide)
        self.requests = 0
        self.batches = 0

    def decide_at_once(self, organization: Organization) -> Verdict | None:
        """A verdict for which nobody needs to be asked; None: Redis is to be. Raises LimiterUnavailable."""
        if self._watch is None or not self._watch.is_exact:
            return self._decide_alone(organization)
        return self.denials.find(organization, self._monotonic())

    def ask(self, organization: Organization, waiter: Waiter) -> None:
        """Tells `waiter` what Redis says of one request; None where LimiterUnavailable would be raised."""
        self.waiting.enlist(organization, waiter)

    def look(self, organization: Organization) -> Verdict:
        """What to announce beside LimiterUnavailable: this worker's share, of which nothing was taken."""
        return self._fallback.look(organization, self._clock())

    def _decide(self, batch: list[Group]) -> asyncio.Future[None]:
        """Gives every request of the batch its verdict: Redis's, or this worker's own where Redis gave none."""
        done: asyncio.Future[None] = self.waiting.loop.create_future()
        watch, tally = self._watch, self._tally
        if watch is None or tally is None or not watch.is_exact:
            # Redis went away between the requests' arrival and this turn.
            for group in batch:
                self._stand_in(group)
            done.set_result(None)
            return done
        asks = [Ask(group.organization.id, group.organization.limits, len(group.waiters)) for group in batch]
        self.batches += 1
        for ask in asks:
            self.requests += ask.want
        tally.begin(asks, partial(self._decided, watch, tally, batch, self._monotonic(), done))
        return done

    def _decided(
        self,
        watch: Watch,
        tally: Tally,
        batch: list[Group],
        sent: float,
        done: asyncio.Future[None],
        outcomes: list[Outcome],
    ) -> None:
        late_seconds = self._monotonic() - sent - tally.deadline_seconds
        failures = []
        try:
            for group, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Answer):
                    self._grant(group, outcome, sent)
                else:
                    failures.append(outcome)
                    self._stand_in(group, owing=is_away(outcome))
            watch.judge(failures, late_seconds)
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
        self.denials.note(organization, refused, sent, answer.now)
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
