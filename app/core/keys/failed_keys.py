"""How many wrong keys an address may present: a token bucket for each, in bounded memory, one worker's own. Pure.

A key has 128 random bits, so nobody finds one by asking. What guessing could do is keep the database busy; that is what
is bounded here. Only different wrong keys count: the same one again is answered from memory, and one misconfigured
client must not use up what its whole office has.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from app.core.relay.proxies import subscriber

FAILURES_AT_ONCE: Final = 20
"""Many people share an address, and typing errors happen."""
FAILURE_SECONDS: Final = 1.0
"""After that one more in this time, for as long as it takes."""
WAIT_SECONDS_MAX: Final = 30.0
"""However many failed at the same moment: behind the same address may be somebody with a right key, new to us."""
ADDRESSES_MAX: Final = 16_384


class FailedKeys:
    """Failures by `subscriber`. `clock` is monotonic seconds.

    What is kept for each is when its bucket will be full again, one number (the generic cell rate algorithm of ITU-T
    I.371). Beyond `addresses_max`, the one that failed longest ago begins anew.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, addresses_max: int = ADDRESSES_MAX) -> None:
        self._clock = clock
        self._addresses_max = addresses_max
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def wait_seconds(self, address: str) -> int:
        """Whole seconds until this address may try another key; 0 when it may now."""
        full_at = self._full_at.get(subscriber(address))
        if full_at is None:
            return 0
        return max(0, math.ceil(full_at - self._clock() - (FAILURES_AT_ONCE - 1) * FAILURE_SECONDS))

    def note(self, address: str) -> None:
        """A key from this address turned out to be nobody's."""
        who, now = subscriber(address), self._clock()
        full_at = max(now, self._full_at.get(who, now)) + FAILURE_SECONDS
        self._full_at[who] = min(full_at, now + (FAILURES_AT_ONCE - 1) * FAILURE_SECONDS + WAIT_SECONDS_MAX)
        self._full_at.move_to_end(who)
        if len(self._full_at) > self._addresses_max:
            self._full_at.popitem(last=False)
