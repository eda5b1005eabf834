"""Whether Redis decides now: notices that it is away, looks for it again, and settles what was admitted without it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Literal, Self

from loguru import logger

from app.core.limits.breaker import Breaker
from app.core.limits.fallback import Debt, Fallback
from app.core.limits.outage import OutageLog
from app.core.limits.settlement import Settlement, is_away
from app.core.limits.tally import Pulse, Tally
from app.core.redis.link import RedisLink, RedisRefusal, RedisUnavailable

LAG_SECONDS_MAX: Final = 0.025
"""A time-out noticed later than this after its deadline says that our loop was held up, not Redis."""
HEARTBEAT_SECONDS: Final = 3.0
FIRST_LOOK_SECONDS: Final = 0.5
AFTER_BUG_SECONDS: Final = 1.0
STILL_AWAY_SECONDS: Final = 1.0
BLIP_SECONDS: Final = 0.5
OTHERS_SECONDS_MAX: Final = 7.0
"""For the others to come back too: an open breaker looks every 6 s at the latest."""
OTHERS_PAUSE_SECONDS: Final = 0.2


class Watch:
    """An async context manager; entering waits up to half a second for Redis, so that a fresh worker starts exact.

    `is_exact`: Redis decides. Any failed batch ends that, as requests decided without Redis are debts to be settled
    before it decides again; and so does a connection that is lost between two batches, because who answers on the next
    one may have forgotten everything. How soon it is looked for is the breaker's say. `errors` counts by kind.
    """

    def __init__(
        self,
        link: RedisLink,
        tally: Tally,
        fallback: Fallback,
        *,
        workers: int,
        jitter: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.is_exact = False
        self.errors: Counter[str] = Counter()
        self._link = link
        self._tally = tally
        self._fallback = fallback
        self._workers = workers
        self._monotonic = monotonic
        self._breaker = Breaker(jitter)
        self._exact = asyncio.Event()
        self._away = asyncio.Event()
        self._away_since = monotonic()
        self._reason: Exception | None = None
        self._outage = OutageLog(monotonic)
        self._settlement = Settlement(tally, fallback)
        self._has_forgotten = False
        self._is_probing = False
        self._supervisor: asyncio.Task[None] | None = None
        self._last_push: asyncio.Task[None] | None = None
        link.on_lost.append(self._lost)

    async def __aenter__(self) -> Self:
        self._away_since = self._monotonic()
        self._supervisor = asyncio.create_task(self._supervise(), name="limiter-watch")
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                await self._exact.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
        if self._last_push is not None:
            await asyncio.wait({self._last_push})
        if self.is_exact:
            with suppress(RedisUnavailable):
                await self._tally.leave()

    @property
    def breaker_state(self) -> Literal["closed", "open", "half-open"]:
        if self.is_exact:
            return "closed"
        return "half-open" if self._is_probing else "open"

    def judge(self, failures: Sequence[RedisRefusal | RedisUnavailable], late_seconds: float) -> None:
        """Draws the conclusions from one batch's failures, `late_seconds` after its deadline (negative: before)."""
        if not failures:
            self._breaker.succeeded()
            return
        self.errors.update(map(kind, failures))
        away = next(filter(is_away, failures), None)
        if away is None:
            self._breaker.succeeded()
            return
        self._blame(away, late_seconds)
        self._fall_back(away)

    def _blame(self, failure: Exception, late_seconds: float) -> None:
        # Neither a loop that was held up nor a connection that is being replaced says that Redis cannot answer.
        if late_seconds < LAG_SECONDS_MAX and kind(failure) not in ("disconnected", "LATE"):
            self._breaker.failed()
        if kind(failure) == "READONLY":  # failed over: the name will lead elsewhere, this connection never
            self._link.reset("the server became a replica")

    def _fall_back(self, reason: Exception) -> None:
        self._reason = reason
        if self.is_exact:
            self.is_exact = False
            self._exact.clear()
            self._away.set()
            self._away_since = self._monotonic()
            self._outage.began(reason)

    def _lost(self, reason: str) -> None:
        self._fall_back(RedisUnavailable(reason, sent=False))

    async def _supervise(self) -> None:
        while True:
            try:
                await (self._stay() if self.is_exact else self._recover())
            except Exception:  # noqa: BLE001 - a bug of ours may break what it likes, but not the way back
                logger.exception("Rate limits: looking after Redis failed")
                await asyncio.sleep(AFTER_BUG_SECONDS)

    async def _stay(self) -> None:
        """One heartbeat, unless Redis goes away before it is due."""
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await self._away.wait()
                return
        sent = self._monotonic()
        try:
            pulse = await self._tally.beat()
            if pulse.is_new:  # also of a worker that was silent too long, whom a needless reminder costs little
                self._has_forgotten = True
                self._fall_back(RedisUnavailable("it has lost its data", sent=False))
            else:
                self._note(pulse)
        except (RedisUnavailable, RedisRefusal) as failure:
            self.judge([failure], self._late_seconds(sent))

    def _late_seconds(self, sent: float) -> float:
        return self._monotonic() - sent - self._tally.deadline_seconds

    async def _recover(self) -> None:
        """One look at Redis; when it holds, everything owed is settled and Redis decides from the same moment on."""
        pause_seconds = self._breaker.next_pause_seconds()
        if pause_seconds >= STILL_AWAY_SECONDS:
            self._outage.lasts(self._reason)
        await asyncio.sleep(pause_seconds)
        while not await self._link.wait_up(STILL_AWAY_SECONDS):
            self._outage.lasts(self._link.last_error)
        self._is_probing = True
        sent = self._monotonic()
        try:
            pulse = await self._tally.probe()
            self._has_forgotten |= pulse.is_new
            if self._has_forgotten:
                await self._settlement.remind()
                self._has_forgotten = False
            await self._settlement.push_owed()
            self._note(await self._others(pulse))
        except (RedisUnavailable, RedisRefusal) as failure:
            self.errors[kind(failure)] += 1
            self._blame(failure, self._late_seconds(sent))
            self._outage.lasts(failure)
        else:
            self._resume()
        finally:
            self._is_probing = False

    async def _others(self, pulse: Pulse) -> Pulse:
        """Waits a while for the workers of before: what they admit meanwhile is unknown to Redis until they are back.

        Else it would grant to the first what the others have spent, once more.
        """
        now = self._monotonic()
        if now - self._away_since < BLIP_SECONDS:
            return pulse
        while pulse.back < self._fallback.workers and self._monotonic() - now < OTHERS_SECONDS_MAX:
            await asyncio.sleep(OTHERS_PAUSE_SECONDS)
            await self._settlement.push_owed()
            pulse = await self._tally.beat(self._away_since)
            if pulse.is_new:
                self._has_forgotten = True
                raise RedisUnavailable("it has lost its data", sent=False)
        return pulse

    def _resume(self) -> None:
        # Requests keep coming, so the last debts leave before any of them can: nothing overtakes on one connection.
        self.is_exact = True
        self._breaker.closed()
        self._away.clear()
        self._exact.set()
        debts = self._settlement.take_last()
        self._last_push = asyncio.create_task(self._push_last(debts), name="limiter-debts")
        self._outage.ended()

    async def _push_last(self, debts: list[Debt]) -> None:
        sent = self._monotonic()
        try:
            while debts:
                await self._settlement.push(debts)
                debts = self._settlement.take_last()
            self._fallback.end()
        except (RedisUnavailable, RedisRefusal) as failure:
            self.judge([failure], self._late_seconds(sent))

    def _note(self, pulse: Pulse) -> None:
        # Never fewer than this machine runs: at a start the siblings have not been heard of yet.
        self._fallback.workers = max(pulse.live, self._workers)


def kind(failure: Exception) -> str:
    """What `failure` is counted as: the refusal's code, "timeout" (or lost under way) or "disconnected"."""
    if isinstance(failure, RedisRefusal):
        return failure.code
    return "timeout" if isinstance(failure, RedisUnavailable) and failure.sent else "disconnected"
