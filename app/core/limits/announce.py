"""What clients are told of their limits: header fields on every answer, and the 429. Pure."""

from __future__ import annotations

from typing import Final

from app.core.envelope import rfc3339
from app.core.errors import RateLimited
from app.core.model import Limits, Verdict

NAMES = (
    "X-RateLimit-Limit-Minute, X-RateLimit-Limit-Day, X-RateLimit-Remaining-Minute, X-RateLimit-Remaining-Day, "
    "X-RateLimit-Reset-Minute, X-RateLimit-Reset-Day, X-RateLimit-Burst-Remaining, X-RateLimit-Mode, RateLimit-Policy, "
    "RateLimit, Retry-After, X-Request-ID"
)
EXPOSE = f"Access-Control-Expose-Headers: {NAMES}\r\n".encode()
"""For answers that a browser's script may read (the backend's Access-Control-Allow-Origin says so)."""
TEXTS_MAX: Final = 4_096


class _Texts:
    """What stays the same for an organization during a minute, or at least a second: the texts between the counts."""

    __slots__ = (
        "fixed",
        "limits",
        "minutes_left",
        "now",
        "policy",
        "reset_day",
        "reset_minute",
        "till_day",
        "till_minute",
    )

    def __init__(self, limits: Limits, reset_minute: int, reset_day: int) -> None:
        self.limits = limits
        self.reset_minute = reset_minute
        self.reset_day = reset_day
        per_minute, per_day = limits.per_minute, limits.per_day
        self.fixed = (
            f"X-RateLimit-Limit-Minute: {per_minute}\r\nX-RateLimit-Limit-Day: {per_day}\r\n"
            f"X-RateLimit-Reset-Minute: {rfc3339(reset_minute)}\r\nX-RateLimit-Reset-Day: {rfc3339(reset_day)}\r\n"
            "X-RateLimit-Remaining-Minute: "
        )
        minute = f'"minute";q={per_minute};w=60;gw-burst={limits.burst}'
        self.policy = f'\r\nRateLimit-Policy: {minute}, "day";q={per_day};w=86400\r\nRateLimit: "minute";r='
        self.be_at(0)

    def be_at(self, now: int) -> None:
        """Counts the seconds that are left from `now` on."""
        self.now = now
        day_left = self.reset_day - now
        self.minutes_left = -(-day_left // 60)
        self.till_minute = f';t={self.reset_minute - now}, "day";r='
        self.till_day = f";t={day_left}\r\n"


_texts: dict[int, _Texts] = {}
"""By the identity of the limits, which are held here so that no others can have it: one object a plan (store.py)."""


def _texts_for(limits: Limits, reset_minute: int, reset_day: int) -> _Texts:
    found = _texts.get(id(limits))
    if (
        found is None
        or found.limits is not limits
        or found.reset_minute != reset_minute
        or found.reset_day != reset_day
    ):
        if found is None and len(_texts) >= TEXTS_MAX:
            _texts.clear()
        found = _texts[id(limits)] = _Texts(limits, reset_minute, reset_day)
    return found


def fields(verdict: Verdict, ietf: bool = True) -> bytes:
    """The header lines for an answer to a known organization. `ietf`: with RateLimit-Policy, RateLimit (draft 10)."""
    limits, _, _, minute, day, burst, now, reset_minute, reset_day, _, mode = verdict
    texts = _texts_for(limits, reset_minute, reset_day)
    left, day_left = str(minute), str(day)
    if ietf:
        if texts.now != now:
            texts.be_at(now)
        # Close to midnight the day's rest cannot all be used: the minutes left would not let it through.
        usable = minute + burst + limits.per_minute * texts.minutes_left
        usable_left = day_left if usable >= day else str(usable)
        lines = (
            f"{texts.fixed}{left}\r\nX-RateLimit-Remaining-Day: {day_left}\r\nX-RateLimit-Burst-Remaining: {burst}"
            f"{texts.policy}{left}{texts.till_minute}{usable_left}{texts.till_day}"
        )
    else:
        lines = (
            f"{texts.fixed}{left}\r\nX-RateLimit-Remaining-Day: {day_left}\r\nX-RateLimit-Burst-Remaining: {burst}\r\n"
        )
    return (lines if mode == "redis" else f"{lines}X-RateLimit-Mode: {mode}\r\n").encode()


def refusal(verdict: Verdict) -> RateLimited:
    """The 429 for a verdict that refuses. Its timestamp plus `retry_after` is `reset_at`, by the clock that decided."""
    error = RateLimited(f"Rate limit exceeded: {verdict.refused_by} limit reached")
    error.headers = (("Retry-After", str(verdict.retry_after)),)
    error.decided_at = verdict.now
    left = {"minute": verdict.remaining_minute + verdict.burst_remaining, "day": verdict.remaining_day}
    error.violated = tuple(policy for policy, requests in left.items() if not requests)
    error.details = {
        "limit_type": verdict.refused_by,
        "daily_used": verdict.daily_used,
        "minute_used": verdict.minute_used,
        "reset_at": rfc3339(verdict.reset_at),
        "retry_after": verdict.retry_after,
    }
    return error
