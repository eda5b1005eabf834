"""How Redis is asked for room on the hot path: one batch out, called back with what became of each organization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from app.core.limits.question import Answer, Ask, Outcome, outcome, packed
from app.core.redis.refusals import RedisRefusal, RedisUnavailable

Told = Callable[[list[Outcome]], None]
Missed = Callable[[list[bytes], list[Outcome], float, Told], None]


class Questions:
    """Part of a Tally, whose `link`, deadline and clock it has; `missed` takes a batch that met NOSCRIPT.

    Each batch carries its deadline in Redis's own time, as far as that is known.
    """

    def __init__(
        self, link: Any, sha: str, deadline_seconds: float, monotonic: Callable[[], float], missed: Missed
    ) -> None:
        self._link: Any = link
        self._sha = sha
        self._deadline_seconds = deadline_seconds
        self._monotonic = monotonic
        self._missed = missed
        self._redis_ahead_seconds: float | None = None

    def begin(self, asks: Sequence[Ask], then: Told) -> None:
        """Calls `then` with one outcome an organization, at once or later; each is decided or untouched, none half."""
        sent, before_us = self._monotonic(), self.before_us()
        calls = [packed(self._sha, ask, before_us) for ask in asks]
        self._link.begin(calls, self._deadline_seconds, partial(self._answered, calls, sent, then))

    def _answered(self, calls: list[bytes], sent: float, then: Told, answers: list[Any] | RedisUnavailable) -> None:
        if isinstance(answers, RedisUnavailable):
            then([answers] * len(calls))
            return
        outcomes = [outcome(answer) for answer in answers]
        for each in outcomes:
            if isinstance(each, Answer):
                self.note_clock(each, sent)
            elif is_refusal(each, "NOSCRIPT"):
                self._missed(calls, outcomes, sent + self._deadline_seconds, then)
                return
        then(outcomes)

    # --- Redis's clock ---

    def note_clock(self, answer: Answer, sent: float) -> None:
        """TIME was read after `sent`: the difference is a round trip too large at most, which errs towards charging."""
        self._redis_ahead_seconds = answer.now - sent

    def redis_seconds(self, at: float) -> float:
        """What Redis's clock says at `at` of ours, as far as that is known."""
        return at + (self._redis_ahead_seconds or 0.0)

    def before_us(self) -> int:
        """The deadline of what is sent now, by Redis's clock; 0 while that is not known."""
        if self._redis_ahead_seconds is None:
            return 0
        return int((self._monotonic() + self._deadline_seconds + self._redis_ahead_seconds) * 1_000_000)


def is_refusal(outcome: Outcome, code: str) -> bool:
    return isinstance(outcome, RedisRefusal) and outcome.code == code
