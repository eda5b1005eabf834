"""How many requests may be sent a second time: a tenth of the traffic, and a few at once. Pure."""

from __future__ import annotations

from typing import Final

RESERVE: Final = 10
"""Repeats that are there from the start and after a quiet time: little traffic earns few."""
REQUESTS_A_REPEAT: Final = 10


class RetryBudget:
    """Backends in trouble get at most a tenth more to do. Whatever stretch of time one looks at, its repeats are no
    more than RESERVE and a tenth of its requests."""

    __slots__ = ("_earned",)

    def __init__(self) -> None:
        self._earned = RESERVE * REQUESTS_A_REPEAT

    def note_request(self) -> None:
        """Each request earns a tenth of a repeat."""
        if self._earned < RESERVE * REQUESTS_A_REPEAT:
            self._earned += 1

    @property
    def has_left(self) -> bool:
        return self._earned >= REQUESTS_A_REPEAT

    def spend(self) -> bool:
        """Whether one request may be sent again."""
        if self._earned < REQUESTS_A_REPEAT:
            return False
        self._earned -= REQUESTS_A_REPEAT
        return True

    def refund(self) -> None:
        """What was set apart was not needed."""
        self._earned = min(RESERVE * REQUESTS_A_REPEAT, self._earned + REQUESTS_A_REPEAT)
