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
def _constant(per_minute: int, per_day: int, burst: int, reset_minute: int, reset_day: int, ietf: bool) -> str:
    """The fields that stay the same for an organization during a minute: most of the text, made once."""
    fixed = (
        f"X-RateLimit-Limit-Minute: {per_minute}\r\nX-RateLimit-Limit-Day: {per_day}\r\n"
        f"X-RateLimit-Reset-Minute: {rfc3339(reset_minute)}\r\nX-RateLimit-Reset-Day: {rfc3339(reset_day)}\r\n"
    )
    if ietf:
        minute = f'"minute";q={per_minute};w=60;gw-burst={burst}'
        fixed += f'RateLimit-Policy: {minute}, "day";q={per_day};w=86400\r\n'
    return fixed


def fields(verdict: Verdict, ietf: bool = True) -> bytes:
    """The header lines for an answer to a known organization. `ietf`: with RateLimit-Policy, RateLimit (draft 10)."""
    v = verdict
    text = (
        f"{_constant(v.limits.per_minute, v.limits.per_day, v.limits.burst, v.reset_minute, v.reset_day, ietf)}"
        f"X-RateLimit-Remaining-Minute: {v.remaining_minute}\r\n"
        f"X-RateLimit-Remaining-Day: {v.remaining_day}\r\nX-RateLimit-Burst-Remaining: {v.burst_remaining}\r\n"
    )
    if ietf:
        minute_left, day_left = v.reset_minute - v.now, v.reset_day - v.now
        # Close to midnight the day's rest cannot all be used: the minutes left would not let it through.
        day = min(v.remaining_day, v.remaining_minute + v.burst_remaining + v.limits.per_minute * -(-day_left // 60))
        text += f'RateLimit: "minute";r={v.remaining_minute};t={minute_left}, "day";r={day};t={day_left}\r\n'
    if v.mode != "redis":
        text += f"X-RateLimit-Mode: {v.mode}\r\n"
    return text.encode()


def refusal(verdict: Verdict) -> RateLimited:
    """The 429 for a verdict that refuses. Its timestamp plus `retry_after` is `reset_at`, by the clock that decided."""
    error = RateLimited(f"Rate limit exceeded: {verdict.refused_by} limit reached")
    error.headers = (("Retry-After", str(verdict.retry_after)),)
    error.decided_at = verdict.now
    error.details = {
        "limit_type": verdict.refused_by,
        "daily_used": verdict.daily_used,
        "minute_used": verdict.minute_used,
        "reset_at": rfc3339(verdict.reset_at),
        "retry_after": verdict.retry_after,
    }
    return error
