"""Redis's part of rate limiting: the buckets that all workers share, and the list of the workers that live.

Every batch is one pipelined write with one deadline. It carries that deadline in Redis's own time, so what a stalled
server finds in its socket when it wakes up charges nobody: the requests were decided without it long ago. How a batch
of requests is asked for stands in questions.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, Final, NamedTuple

from app.core.limits.fallback import Debt, Known
from app.core.limits.question import Answer, Ask, Outcome, key, outcome, packed
from app.core.limits.questions import Questions, Told, is_refusal
from app.core.model import Limits
from app.core.redis.link import Command, RedisLink, RedisUnavailable

__all__ = ["Answer", "Ask", "Outcome", "Pulse", "Tally"]

_FOLDER: Final = files("app.core.limits")  # not __file__, which a compiled module has elsewhere
SCRIPT = (_FOLDER / "limiter.lua").read_text()
"""Not Final: the tests put their own clock into it, which compiled code would not see (compiled.py)."""
HEARTBEAT_SCRIPT: Final = (_FOLDER / "heartbeat.lua").read_text()
NODES_KEY: Final = "rl:nodes"
PROBE_KEY: Final = key("probe")
"""Looked at and never written: no organization has this id."""
SILENT_SECONDS_MAX: Final = 15
"""A worker without a heartbeat for this long no longer counts."""
DEADLINE_SECONDS: Final = 0.05


class Pulse(NamedTuple):
    """Workers that live, this one included; whether Redis had not known of this one; and those back since a moment."""

    live: int
    is_new: bool
    back: int


class Tally:
    """The scripts on one RedisLink. What is awaited raises RedisUnavailable without an answer in `deadline_seconds`."""

    def __init__(
        self,
        link: RedisLink,
        *,
        node: str,
        deadline_seconds: float = DEADLINE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.deadline_seconds = deadline_seconds
        self._link = link
        self._node = node
        self._monotonic = monotonic
        self._load: Command = (b"SCRIPT", b"LOAD", SCRIPT)
        self._sha = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
        self._questions = Questions(link, self._sha, deadline_seconds, monotonic, self._take_missed)
        self.begin = self._questions.begin
        """`take` for who is called back, at once or later. What is unavailable is an outcome too."""
        self._missed: set[asyncio.Future[None]] = set()

    async def take(self, asks: Sequence[Ask]) -> list[Outcome]:
        """Grants what there is room for, one outcome an organization; each is decided or untouched, none half."""
        before_us = self._questions.before_us()
        return await self._evaluate([packed(self._sha, ask, before_us) for ask in asks])

    def _take_missed(self, calls: list[bytes], outcomes: list[Outcome], until: float, then: Told) -> None:
        missed = asyncio.ensure_future(self._evaluate_missed(calls, outcomes, until))
        self._missed.add(missed)
        missed.add_done_callback(self._missed.discard)
        missed.add_done_callback(lambda _: then(outcomes))

    async def settle(self, debts: Sequence[Debt]) -> list[Outcome]:
        """Charges what was admitted without Redis, as far as its minute and day still last, room or not."""
        before_us = self._questions.before_us()
        return await self._evaluate([self._settling(debt, before_us) for debt in debts])

    async def remind(self, known: Sequence[Known]) -> list[Outcome]:
        """Tells a Redis that lost its data what it had said: no bucket has less used afterwards. Safe to repeat."""
        return await self._evaluate([self._reminder(each) for each in known])

    async def forget(self, organization_id: str) -> None:
        """Drops a bucket: what is missing counts as full. Raises RedisRefusal too."""
        (answer,) = await self._link.run([(b"DEL", key(organization_id))], self.deadline_seconds)
        if isinstance(answer, Exception):
            raise answer

    async def probe(self) -> Pulse:
        """Brings the script, reads the clock, and proves by a heartbeat that this Redis takes writes.

        Nobody but this worker counts as back.

        Raises RedisRefusal too (OOM, LOADING, READONLY...).
        """
        look = self._call(PROBE_KEY, Limits(per_minute=1, per_day=1, burst=0), 0, 0)
        sent = self._monotonic()
        answers = await self._link.run([self._load, look, self._heartbeat(sent)], self.deadline_seconds)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        self._note_clock(outcome(answers[1]), sent)
        return _pulse(answers[2])._replace(back=1)

    async def beat(self, since: float = 0.0) -> Pulse:
        """One heartbeat; `since` (this Tally's monotonic seconds) says who is back. Raises RedisRefusal too."""
        (answer,) = await self._link.run([self._heartbeat(since)], self.deadline_seconds)
        if isinstance(answer, Exception):
            raise answer
        return _pulse(answer)

    async def leave(self) -> None:
        """This worker ends: the others need not wait until its heartbeat has grown old."""
        await self._link.run([(b"ZREM", NODES_KEY, self._node)], self.deadline_seconds)

    def _heartbeat(self, since: float) -> Command:
        since_redis = int(self._questions.redis_seconds(since))
        return (b"EVAL", HEARTBEAT_SCRIPT, 1, NODES_KEY, self._node, SILENT_SECONDS_MAX, since_redis)

    def _call(self, bucket_key: str, limits: Limits, want: int, before_us: int) -> tuple[bytes | str | int, ...]:
        return (b"EVALSHA", self._sha, 1, bucket_key, limits.per_minute, limits.burst, limits.per_day, want, before_us)

    def _settling(self, debt: Debt, before_us: int) -> Command:
        call = self._call(key(debt.organization_id), debt.limits, debt.in_minute, before_us)
        return (*call, debt.slot, debt.day, debt.in_day)

    def _reminder(self, known: Known) -> Command:
        nothing_owed = (0, 0, 0)
        return (*self._call(key(known.organization_id), known.limits, 0, 0), *nothing_owed, *known.bucket)

    async def _evaluate(self, calls: Sequence[Command]) -> list[Outcome]:
        sent = self._monotonic()
        outcomes = [outcome(answer) for answer in await self._link.run(calls, self.deadline_seconds)]
        if any(is_refusal(each, "NOSCRIPT") for each in outcomes):
            await self._evaluate_missed(calls, outcomes, sent + self.deadline_seconds)
        for each in outcomes:
            self._note_clock(each, sent)
        return outcomes

    async def _evaluate_missed(self, calls: Sequence[Command], outcomes: list[Outcome], until: float) -> None:
        """Somebody flushed the scripts. Calls answered by NOSCRIPT did not run: these, and only these, go out again."""
        missed = [i for i, each in enumerate(outcomes) if is_refusal(each, "NOSCRIPT")]
        commands = [self._load, *(calls[i] for i in missed)]
        try:
            _, *answers = await self._link.run(commands, max(0.0, until - self._monotonic()))
        except RedisUnavailable as failure:
            answers = [failure] * len(missed)
        for i, answer in zip(missed, answers, strict=True):
            outcomes[i] = outcome(answer)

    def _note_clock(self, outcome: Outcome, sent: float) -> None:
        if isinstance(outcome, Answer):
            self._questions.note_clock(outcome, sent)


def _pulse(answer: Any) -> Pulse:
    live, is_new, back = answer
    return Pulse(int(live), bool(is_new), int(back))
