"""When to stop asking a Redis that fails, and when to look again. Pure: whoever waits brings the clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

FAILURES_MAX: Final = 3
PAUSE_SECONDS_MIN: Final = 0.5
PAUSE_SECONDS_MAX: Final = 5.0
JITTER: Final = 0.2
"""Each pause is up to a fifth longer or shorter, so that the workers of a fleet do not look again all at once."""


class Breaker:
    """Opens after three failures in a row. While open, each look (the half-open probe) that fails doubles the pause."""

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._failures = 0
        self._pause_seconds = PAUSE_SECONDS_MIN

    @property
    def is_open(self) -> bool:
        return self._failures >= FAILURES_MAX

    def failed(self) -> None:
        self._failures += 1

    def closed(self) -> None:
        """A probe got through. The next pause stays long until real work has succeeded: a probe is easily answered."""
        self._failures = 0

    def succeeded(self) -> None:
        """A batch of real work got through."""
        self._failures = 0
        self._pause_seconds = PAUSE_SECONDS_MIN

    def next_pause_seconds(self) -> float:
        """How long to wait before the next look: 0 unless open, else 0.5 s doubling up to 5 s, give or take a fifth."""
        if not self.is_open:
            return 0.0
        pause = self._pause_seconds
        self._pause_seconds = min(PAUSE_SECONDS_MAX, pause * 2)
        return pause * (1 - JITTER + 2 * JITTER * self._jitter())
