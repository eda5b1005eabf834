"""What clients are told of their limits: header fields on every answer, and the 429. Pure."""

from __future__ import annotations

from functools import lru_cache

from app.core.envelope import rfc3339
from app.core.errors import RateLimited
from app.core.model import Verdict

NAMES = (
    "X-RateLimit-Limit-Minute, X-RateLimit-Limit-Day, X-RateLimit-Remaining-Minute, X-RateLimit-Remaining-Day, "
    "X-RateLimit-Reset-Minute, X-RateLimit-Reset-Day, X-RateLimit-Burst-Remaining, X-RateLimit-Mode, RateLimit-Policy, "
    "RateLimit, Retry-After, X-Request-ID"
)
EXPOSE = f"Access-Control-Expose-Headers: {NAMES}\r\n".encode()
"""For answers that a browser's script may read (the backend's Access-Control-Allow-Origin says so)."""


@lru_cache(maxsize=4096)
def _format(per_minute: int, per_day: int, burst: int, reset_minute: int, reset_day: int, ietf: bool) -> bytes:
    """Most of the text stays the same for an organization during a minute: a format for the numbers that do not."""
    text = (
        f"X-RateLimit-Limit-Minute: {per_minute}\r\nX-RateLimit-Limit-Day: {per_day}\r\n"
        f"X-RateLimit-Reset-Minute: {rfc3339(reset_minute)}\r\nX-RateLimit-Reset-Day: {rfc3339(reset_day)}\r\n"
        "X-RateLimit-Remaining-Minute: %d\r\nX-RateLimit-Remaining-Day: %d\r\nX-RateLimit-Burst-Remaining: %d\r\n"
    )
    if ietf:
        minute = f'"minute";q={per_minute};w=60;gw-burst={burst}'
        text += f'RateLimit-Policy: {minute}, "day";q={per_day};w=86400\r\n'
        text += 'RateLimit: "minute";r=%d;t=%d, "day";r=%d;t=%d\r\n'
    return text.encode()


def fields(verdict: Verdict, ietf: bool = True) -> bytes:
    """The header lines for an answer to a known organization. `ietf`: with RateLimit-Policy, RateLimit (draft 10)."""
    limits, _, _, minute, day, burst, now, reset_minute, reset_day, _, mode = verdict
    form = _format(limits.per_minute, limits.per_day, limits.burst, reset_minute, reset_day, ietf)
    if ietf:
        day_left = reset_day - now
        # Close to midnight the day's rest cannot all be used: the minutes left would not let it through.
        usable = min(day, minute + burst + limits.per_minute * -(-day_left // 60))
        lines = form % (minute, day, burst, minute, reset_minute - now, usable, day_left)
    else:
        lines = form % (minute, day, burst)
    return lines if mode == "redis" else lines + b"X-RateLimit-Mode: %b\r\n" % mode.encode()


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
