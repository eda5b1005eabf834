"""Whether a target is worth a request: set aside after failures in a row, tried again after growing pauses. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Literal

FAILURES_MAX: Final = 3
PAUSE_SECONDS_MIN: Final = 1.0
PAUSE_SECONDS_MAX: Final = 30.0
PROBES_FAILED_MAX: Final = 2
DOUBT_SECONDS: Final = 5.0

State = Literal["healthy", "aside", "trying", "unhealthy"]


class Standing:
    """What a target's answers say about it. Times are seconds by the caller's clock.

    Two things speak against a target, and each must be taken back by its own kind: requests that failed, and probes
    that failed. A server that answers its health path may still hang on every request, and the other way round.
    """

    __slots__ = (
        "_aside_at",
        "_failed_at",
        "_jitter",
        "_pauses",
        "_probes_failed",
        "failures",
        "is_well",
        "pause_seconds",
        "retry_at",
    )

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._aside_at: float | None = None
        self._failed_at = 0.0
        self._pauses = 0
        self._probes_failed = 0
        self.failures = 0
        """Attempts that failed since the last whole answer."""
        self.is_well = True
        self.retry_at = 0.0
        self.pause_seconds = 0.0

    @property
    def is_aside(self) -> bool:
        """Whether failed requests have set it aside."""
        return self._aside_at is not None

    @property
    def is_unhealthy(self) -> bool:
        """Whether its health path has failed twice in a row."""
        return self._probes_failed >= PROBES_FAILED_MAX

    def is_doubtful(self, now: float) -> bool:
        """Whether its last attempt failed, and that not long ago: enough to spare it what cannot be repeated."""
        return self.failures > 0 and now < self._failed_at + DOUBT_SECONDS

    def state(self, now: float) -> State:
        """For people: `trying` is set aside, with the pause over."""
        if self.is_unhealthy:
            return "unhealthy"
        if not self.is_aside:
            return "healthy"
        return "aside" if now < self.retry_at else "trying"

    def may_be_tried(self, now: float, *, can_repeat: bool) -> bool:
        """Whether a request may find out if it works again. One that cannot be repeated elsewhere goes last: only
        when no other came for as long again."""
        return (
            self.is_aside and not self.is_unhealthy and now >= self.retry_at + (0 if can_repeat else self.pause_seconds)
        )

    # --- what requests tell ---

    def answered(self, began: float) -> None:
        """A whole answer to a request that began at `began`. One from before it was set aside proves nothing."""
        if self._aside_at is None or began >= self._aside_at:
            self.failures = self._pauses = 0
            self._set_aside(None)

    def began_to_answer(self) -> None:
        """A trial's answer goes on for long (a stream). Good enough, but the next failure sets it aside at once."""
        self.failures = min(self.failures, FAILURES_MAX - 1)
        self._set_aside(None)

    def failed(self, began: float, now: float) -> None:
        """An attempt that began at `began` failed at `now`."""
        self.failures += 1
        self._failed_at = now
        if self._aside_at is None:
            if self.failures >= FAILURES_MAX:
                self._set_aside(now)
                self._pause(now)
        elif began >= self._aside_at and now >= self.retry_at:  # a trial: what was under way before says nothing new
            self._pause(now)

    def _set_aside(self, at: float | None) -> None:
        self._aside_at = at
        self._judge()

    def _pause(self, now: float) -> None:
        """Doubles, with up to half of it taken off by chance, so that workers do not come back all at once."""
        longest = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN * 2.0 ** min(self._pauses, 10))
        self._pauses += 1
        self.pause_seconds = longest * (1 - self._jitter() / 2)
        self.retry_at = now + self.pause_seconds

    # --- what probes tell ---

    def probed(self, is_good: bool) -> None:
        """One failed probe may be chance; one good probe is enough."""
        self._probes_failed = 0 if is_good else self._probes_failed + 1
        self._judge()

    def _judge(self) -> None:
        self.is_well = not (self.is_aside or self.is_unhealthy)
