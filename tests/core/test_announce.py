"""What clients are told of their limits: limits.md sections 2 and 6, to the byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.envelope import rfc3339
from app.core.limits import announce
from app.core.model import PLANS, Limits, LimitType, Mode, Verdict

MINUTE = 1_700_000_040  # 2023-11-14T22:14:00Z
DAY = 1_700_006_400  # the midnight that follows
EXAMPLE = Verdict(
    limits=PLANS["premium"],
    minute_used=153,
    daily_used=4_766,
    remaining_minute=847,
    remaining_day=95_234,
    burst_remaining=500,
    now=MINUTE + 15,
    reset_minute=MINUTE + 60,
    reset_day=DAY,
)


def fields(verdict: Verdict, ietf: bool = True) -> dict[str, str]:
    lines = announce.fields(verdict, ietf).decode().split("\r\n")
    assert lines.pop() == ""
    return dict(line.split(": ", 1) for line in lines)


def test_the_fields_of_an_admitted_request() -> None:
    """Every header of the contract, with limits.md's example spelled as it stands there."""
    at_midnight = EXAMPLE._replace(reset_day=EXAMPLE.now + 34_125)
    found = fields(at_midnight)
    assert found["RateLimit-Policy"] == '"minute";q=1000;w=60;gw-burst=500, "day";q=100000;w=86400'
    assert found["RateLimit"] == '"minute";r=847;t=45, "day";r=95234;t=34125'
    assert found == {
        "X-RateLimit-Limit-Minute": "1000",
        "X-RateLimit-Limit-Day": "100000",
        "X-RateLimit-Reset-Minute": "2023-11-14T22:15:00Z",
        "X-RateLimit-Reset-Day": rfc3339(at_midnight.reset_day),
        "X-RateLimit-Remaining-Minute": "847",
        "X-RateLimit-Remaining-Day": "95234",
        "X-RateLimit-Burst-Remaining": "500",
        "RateLimit-Policy": found["RateLimit-Policy"],
        "RateLimit": found["RateLimit"],
    }


def test_the_ietf_pair_can_be_left_out() -> None:
    """RATE_LIMIT_IETF_HEADERS=off takes exactly the two draft fields away."""
    assert fields(EXAMPLE).keys() - fields(EXAMPLE, ietf=False).keys() == {"RateLimit", "RateLimit-Policy"}


@pytest.mark.parametrize("mode", ["local", "open"])
def test_degraded_modes_are_told(mode: Mode) -> None:
    """Away from Redis every answer says so; with it, none does."""
    assert fields(EXAMPLE._replace(mode=mode))["X-RateLimit-Mode"] == mode
    assert "X-RateLimit-Mode" not in fields(EXAMPLE)


def test_near_midnight_the_day_promises_only_what_the_minutes_allow() -> None:
    """The draft's `r` for the day is at most this minute's tokens and a full allowance for each minute to come."""
    verdict = EXAMPLE._replace(now=DAY - 45, reset_minute=DAY)
    assert fields(verdict)["RateLimit"] == '"minute";r=847;t=45, "day";r=2347;t=45'
    assert fields(verdict)["X-RateLimit-Remaining-Day"] == "95234"


limits = st.builds(Limits, st.integers(1, 10**6), st.integers(1, 10**8), st.integers(0, 10**6))
verdicts = st.builds(
    Verdict,
    limits=limits,
    minute_used=st.integers(0, 10**6),
    daily_used=st.integers(0, 10**8),
    remaining_minute=st.integers(0, 10**6),
    remaining_day=st.integers(0, 10**8),
    burst_remaining=st.integers(0, 10**6),
    now=st.just(MINUTE + 15),
    reset_minute=st.just(MINUTE + 60),
    reset_day=st.just(DAY),
    refused_by=st.sampled_from(["minute", "daily"]),
)


@given(verdicts)
def test_a_429_agrees_with_itself(verdict: Verdict) -> None:
    """timestamp + retry_after = reset_at, and message, details and Retry-After speak of the same window."""
    error = announce.refusal(verdict)
    details = error.details
    assert details is not None
    assert error.decided_at is not None
    assert error.headers == (("Retry-After", str(details["retry_after"])),)
    assert rfc3339(error.decided_at + details["retry_after"]) == details["reset_at"]
    assert error.message == f"Rate limit exceeded: {verdict.refused_by} limit reached"
    assert list(details) == ["limit_type", "daily_used", "minute_used", "reset_at", "retry_after"]
    assert (details["minute_used"], details["daily_used"]) == (verdict.minute_used, verdict.daily_used)


@pytest.mark.parametrize(("refused_by", "seconds"), [("minute", 45), ("daily", DAY - MINUTE - 15)])
def test_the_wait_is_the_refusing_windows(refused_by: LimitType, seconds: int) -> None:
    """A minute's refusal waits for the minute, a day's for midnight; both say it in the header and the body."""
    error = announce.refusal(EXAMPLE._replace(refused_by=refused_by))
    assert error.details is not None
    assert error.details["limit_type"] == refused_by
    assert error.details["retry_after"] == seconds


@pytest.mark.parametrize(
    ("minute", "burst", "day", "violated"),
    [(0, 0, 9, ("minute",)), (9, 0, 0, ("day",)), (0, 1, 0, ("day",)), (0, 0, 0, ("minute", "day"))],
)
def test_the_violated_policies(minute: int, burst: int, day: int, violated: tuple[str, ...]) -> None:
    """A refusal knows every policy without room by its name in RateLimit-Policy; the burst is the minute's room."""
    verdict = EXAMPLE._replace(
        remaining_minute=minute, burst_remaining=burst, remaining_day=day, refused_by="minute" if day else "daily"
    )
    assert announce.refusal(verdict).violated == violated


def test_browsers_may_read_every_field_that_we_send() -> None:
    """Access-Control-Expose-Headers names all fields of an answer to a known organization."""
    exposed = announce.EXPOSE.decode().partition(": ")[2].strip().split(", ")
    sent = {*fields(EXAMPLE._replace(mode="local")), "Retry-After", "X-Request-ID"}
    assert set(exposed) == sent
