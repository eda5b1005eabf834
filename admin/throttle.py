"""Wrong tokens slow their own address down: each one's wait is longer, up to a point, and waits queue up.

A token that was right from an address once never waits there, so nobody who guesses can lock out those who know.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.core.relay.proxies import subscriber

FREE_FAILURES: Final = 3
"""Typing errors happen."""
FIRST_PAUSE_SECONDS: Final = 0.1
PAUSE_SECONDS_MAX: Final = 2.0
WAIT_SECONDS_MAX: Final = 5.0
"""Beyond this an attempt is not taken at all; it bounds how many of an address wait at once."""
FORGET_SECONDS: Final = 300.0
ADDRESSES_MAX: Final = 4_096
PROVEN_MAX: Final = 4_096


@dataclass(slots=True)
class _Record:
    failures: int = 0
    failed_at: float = 0.0
    free_at: float = 0.0


class Throttle:
    """Failures by address (`subscriber`: a /64 of IPv6 is one). Times are `monotonic` seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._proven: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def wait_seconds(self, address: str, digest: bytes) -> float:
        """How long an attempt has to wait before its token is looked at. More than WAIT_SECONDS_MAX: refuse it."""
        place = subscriber(address)
        record = self._records.get(place)
        now = self._monotonic()
        if record is None or (place, digest) in self._proven:
            return 0.0
        if now - record.failed_at > FORGET_SECONDS:
            del self._records[place]
            return 0.0
        wait = max(0.0, record.free_at - now) + _pause(record.failures)
        if wait <= WAIT_SECONDS_MAX:
            record.free_at = now + wait
        return wait

    def failed(self, address: str) -> int:
        """Notes a wrong token; returns how many there were of late."""
        place = subscriber(address)
        record = self._records.setdefault(place, _Record())
        self._records.move_to_end(place)
        if len(self._records) > ADDRESSES_MAX:
            self._records.popitem(last=False)
        record.failures += 1
        record.failed_at = self._monotonic()
        return record.failures

    def succeeded(self, address: str, digest: bytes) -> None:
        """Notes that this token is right: from this address it waits no more."""
        pair = (subscriber(address), digest)
        self._proven[pair] = None
        self._proven.move_to_end(pair)
        if len(self._proven) > PROVEN_MAX:
            self._proven.popitem(last=False)


def _pause(failures: int) -> float:
    if failures < FREE_FAILURES:
        return 0.0
    return min(PAUSE_SECONDS_MAX, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - FREE_FAILURES, 10))
