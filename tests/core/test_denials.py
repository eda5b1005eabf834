from __future__ import annotations

from app.core.limits.bucket import Bucket, verdict
from app.core.limits.denials import ORGANIZATIONS_MAX, Denials
from app.core.model import Limits, Organization

LIMITS = Limits(per_minute=10, per_day=100, burst=0)
ORGANIZATION = Organization("a", "basic", LIMITS)
REDIS_NOW = 1_900_000_800.0 + 58.4
EMPTY = verdict(Bucket(int(REDIS_NOW) // 60, 10, 0, int(REDIS_NOW) // 86_400, 10), LIMITS, REDIS_NOW, "minute")


def test_holds_for_a_second_and_keeps_its_clock_right() -> None:
    """A refusal is repeated without Redis for one second, `now` moving on so that now + retry_after is the reset."""
    denials = Denials()
    denials.note(ORGANIZATION, EMPTY, asked_at=50.0, redis_now=REDIS_NOW)
    for elapsed in (0.0, 0.5, 0.7, 0.99):
        found = denials.find(ORGANIZATION, 50.0 + elapsed)
        assert found is not None
        assert found.now == int(REDIS_NOW + elapsed)
        assert found.now + found.retry_after == EMPTY.reset_minute
    assert denials.find(ORGANIZATION, 51.0) is None


def test_never_outlasts_the_reset() -> None:
    """Half a second before the minute ends it holds for that half second only, counted from before Redis was asked."""
    denials = Denials()
    denials.note(ORGANIZATION, EMPTY, asked_at=50.0, redis_now=1_900_000_860.0 - 0.5)
    assert denials.find(ORGANIZATION, 50.49) is not None
    assert denials.find(ORGANIZATION, 50.5) is None


def test_other_limits_are_asked_for_anew() -> None:
    """A raised limit counts from the next request: a refusal under the old one is not repeated."""
    denials = Denials()
    denials.note(ORGANIZATION, EMPTY, asked_at=50.0, redis_now=REDIS_NOW)
    assert denials.find(Organization("a", "basic", Limits(20, 100, 0)), 50.1) is None
    assert denials.find(Organization("b", "basic", LIMITS), 50.1) is None


def test_room_is_bounded() -> None:
    """A flood of refused organizations does not fill the memory."""
    denials = Denials()
    for number in range(ORGANIZATIONS_MAX + 5):
        denials.note(Organization(str(number), "basic", LIMITS), EMPTY, asked_at=50.0, redis_now=REDIS_NOW)
    kept = sum(
        denials.find(Organization(str(number), "basic", LIMITS), 50.1) is not None
        for number in range(ORGANIZATIONS_MAX + 5)
    )
    assert 0 < kept <= ORGANIZATIONS_MAX
