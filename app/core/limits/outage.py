"""What the log is told of the times without Redis: when one begins and when it is over, bounded when there are many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from loguru import logger

QUIET_SECONDS: Final = 10.0
"""After a line about an outage, one that is over at the first look is only counted: a Redis on the edge makes many."""


class OutageLog:
    """`began`, then `lasts` as often as a look fails, then `ended`. `monotonic` is seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._since: float | None = None
        self._is_told = False
        self._told_at = float("-inf")
        self._untold = 0

    def began(self, reason: object) -> None:
        """Redis decided until now."""
        self._since = self._monotonic()
        self._is_told = False
        if self._since - self._told_at >= QUIET_SECONDS:
            self._tell(reason)
        else:
            self._untold += 1

    def lasts(self, reason: object) -> None:
        """It is no blip. Before Redis decided for the first time there is nothing to tell: it was never there."""
        if self._since is not None and not self._is_told:
            self._untold -= 1
            self._tell(reason)

    def ended(self) -> None:
        """Redis decides (again)."""
        if self._since is None:
            logger.info("✅ Connected to Redis for rate limiting")
        elif self._is_told:
            logger.info("Rate limits: Redis decides again after {:.3f} s", self._monotonic() - self._since)

    def _tell(self, reason: object) -> None:
        more = f"; also {self._untold} times for a moment since the last such line" if self._untold else ""
        logger.warning("Rate limits: deciding without Redis ({}{})", reason, more)
        self._is_told, self._told_at, self._untold = True, self._monotonic(), 0
