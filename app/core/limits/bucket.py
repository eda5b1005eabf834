"""The aligned bucket: a UTC minute brings `per_minute` requests, up to `burst` unused ones roll over; a day has a cap.

Integers only, no clock of its own: whoever decides brings the time. limiter.lua is the same arithmetic inside Redis.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from app.core.model import Limits, LimitType, Mode, Verdict

MINUTE_SECONDS: Final = 60
DAY_SECONDS: Final = 86_400
SLOTS_AHEAD_MAX: Final = 2
DAYS_AHEAD_MAX: Final = 1
"""A stored slot or day further ahead than this was written by a wrong clock; nearer ones are waited out."""


class Bucket(NamedTuple):
    """What an organization has used. Not what it has left, so that a change of its limits counts from the next request.

    `slot`: minutes since 1970; `used` in it; `carried` into it from before; `day`: days since 1970; `used_today`.
    """

    slot: int
    used: int
    carried: int
    day: int
    used_today: int

    @classmethod
    def full(cls, limits: Limits, now: float) -> Bucket:
        """An organization never seen before at `now` (unix seconds): nothing used, the whole burst saved up."""
        return cls(int(now) // MINUTE_SECONDS, 0, limits.burst, int(now) // DAY_SECONDS, 0)

    def rolled(self, limits: Limits, now: float) -> Bucket:
        """The same bucket at `now` (unix seconds): past minutes refilled, a past day forgotten."""
        slot_now, day_now = int(now) // MINUTE_SECONDS, int(now) // DAY_SECONDS
        slot, used, carried, day, used_today = self
        if slot == slot_now and day == day_now:
            return self
        if slot - slot_now > SLOTS_AHEAD_MAX or day - day_now > DAYS_AHEAD_MAX:
            slot, day, carried = slot_now, day_now, 0
        if slot_now > slot:
            left = max(0, limits.per_minute + min(carried, limits.burst) - used)
            carried = min(limits.burst, left + (slot_now - slot - 1) * limits.per_minute)
            slot, used = slot_now, 0
        if day_now > day:
            day, used_today = day_now, 0
        return Bucket(slot, used, carried, day, used_today)

    def tokens(self, limits: Limits) -> int:
        """Requests left in this minute, saved ones included."""
        return max(0, limits.per_minute + min(self.carried, limits.burst) - self.used)

    def day_left(self, limits: Limits) -> int:
        return max(0, limits.per_day - self.used_today)

    def room(self, limits: Limits) -> int:
        """Requests that both windows would admit now."""
        return min(self.tokens(limits), self.day_left(limits))

    def charged(self, requests: int) -> Bucket:
        """With `requests` more used, or fewer when negative, whether there is room for them or not."""
        slot, used, carried, day, used_today = self
        return Bucket(slot, used + requests, carried, day, used_today + requests)

    def take(self, limits: Limits, want: int) -> tuple[Bucket, int]:
        """Charges as many of `want` as there is room for; returns the bucket after that and how many they were."""
        granted = min(want, self.room(limits))
        return self.charged(granted), granted

    def refusal(self, limits: Limits) -> LimitType | None:
        """Which window refuses the next request. Both do: the day, as it opens later."""
        if self.day_left(limits) < 1:
            return "daily"
        return "minute" if self.tokens(limits) < 1 else None


@lru_cache(maxsize=4096)
def share(limits: Limits, workers: int) -> Limits:
    """One worker's part of `limits` while the workers cannot ask Redis; never below one request."""
    return Limits(max(1, limits.per_minute // workers), max(1, limits.per_day // workers), limits.burst // workers)


def stand_in(known: Bucket | None, limits: Limits, workers: int, now: float) -> Bucket:
    """What one of `workers` starts with when Redis goes away: its share, or its part of what was left if that is less.

    `known` is what Redis said last; an organization that this worker knows nothing of gets the share.
    """
    own = share(limits, workers)
    if known is None:
        return Bucket.full(own, now)
    known = known.rolled(limits, now)
    tokens = min(own.per_minute + own.burst, known.tokens(limits) // workers)
    day_left = min(own.per_day, known.day_left(limits) // workers)
    used, carried = max(0, own.per_minute - tokens), max(0, tokens - own.per_minute)
    return Bucket(known.slot, used, carried, known.day, own.per_day - day_left)


def verdict(
    bucket: Bucket,
    limits: Limits,
    now: float,
    refused_by: LimitType | None = None,
    mode: Mode = "redis",
    charged: int = 0,
) -> Verdict:
    """Every figure that a client is told, from the bucket after the decision and the clock that decided (unix seconds).

    `charged`: as if so many more had been used, or fewer when negative (as for the first of several in one batch).
    `remaining_minute` leaves the burst out: it never exceeds the announced limit and is 0 on every minute's refusal.
    """
    slot, used, carried, day, used_today = bucket
    used, used_today = used + charged, used_today + charged
    left = limits.per_minute - used
    remaining_minute = left if left > 0 else 0
    tokens = left + (carried if carried < limits.burst else limits.burst)
    day_left = limits.per_day - used_today
    # Made once a request: the constructor that NamedTuple writes costs five times as much.
    return tuple.__new__(
        Verdict,
        (
            limits,
            used,
            used_today,
            remaining_minute,
            day_left if day_left > 0 else 0,
            (tokens if tokens > 0 else 0) - remaining_minute,
            int(now),
            (slot + 1) * MINUTE_SECONDS,
            (day + 1) * DAY_SECONDS,
            refused_by,
            mode,
        ),
    )
