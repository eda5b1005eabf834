from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.core.limits.bucket import DAY_SECONDS, Bucket, share, stand_in, verdict
from app.core.model import Limits

NOON = 1_900_000_800.0 - 1_900_000_800 % DAY_SECONDS + 43_200
PREMIUM = Limits(per_minute=1_000, per_day=100_000, burst=500)

limits_of_any_size = st.builds(
    Limits, per_minute=st.integers(1, 40), per_day=st.integers(1, 400), burst=st.integers(0, 60)
)
steps = st.lists(
    st.tuples(
        st.integers(0, 400) | st.integers(0, 3 * DAY_SECONDS), st.integers(0, 50), st.none() | limits_of_any_size
    ),
    max_size=30,
)


class NaiveBucket:
    """The rules word for word, a minute and a request at a time."""

    def __init__(self, limits: Limits, now: int) -> None:
        self.minute, self.day = now // 60, now // DAY_SECONDS
        self.used, self.saved, self.used_today = 0, limits.burst, 0

    def ask(self, limits: Limits, now: int, want: int) -> int:
        while self.minute < now // 60:
            unused = max(0, limits.per_minute + min(self.saved, limits.burst) - self.used)
            self.minute, self.used, self.saved = self.minute + 1, 0, min(limits.burst, unused)
        if self.day < now // DAY_SECONDS:
            self.day, self.used_today = now // DAY_SECONDS, 0
        granted = 0
        while granted < want and self._has_room(limits):
            self.used, self.used_today, granted = self.used + 1, self.used_today + 1, granted + 1
        return granted

    def _has_room(self, limits: Limits) -> bool:
        this_minute = self.used < limits.per_minute + min(self.saved, limits.burst)
        return this_minute and self.used_today < limits.per_day


@given(limits_of_any_size, steps)
def test_closed_form_grants_what_minute_by_minute_grants(limits: Limits, steps: list[tuple[int, int, Limits]]) -> None:
    """Over any gaps, costs and changes of plan, exactly as many are granted as by the rules applied step by step."""
    now = int(NOON)
    bucket, naive = Bucket.full(limits, now), NaiveBucket(limits, now)
    for gap_seconds, want, changed in steps:
        now += gap_seconds
        limits = changed or limits
        bucket, granted = bucket.rolled(limits, now).take(limits, want)
        assert granted == naive.ask(limits, now, want)
        assert (bucket.used, bucket.used_today) == (naive.used, naive.used_today)


def test_full_bucket_admits_limit_and_burst_and_then_refuses() -> None:
    """A fresh organization is admitted per_minute + burst requests at once, and not one more."""
    bucket, granted = Bucket.full(PREMIUM, NOON).take(PREMIUM, 2_560)
    assert granted == 1_500
    assert bucket.refusal(PREMIUM) == "minute"


def test_unused_requests_roll_over_up_to_the_burst() -> None:
    """A minute used up brings per_minute in the next one, a minute unused brings the burst on top."""
    drained, _ = Bucket.full(PREMIUM, NOON).take(PREMIUM, 1_500)
    assert drained.rolled(PREMIUM, NOON + 60).tokens(PREMIUM) == 1_000
    assert drained.rolled(PREMIUM, NOON + 120).tokens(PREMIUM) == 1_500


def test_day_that_is_used_up_refuses_as_daily_until_midnight() -> None:
    """The daily window refuses by its own name, also when the minute is empty too, and opens at 00:00 UTC."""
    limits = Limits(per_minute=10, per_day=10, burst=0)
    midnight = NOON + 43_200
    bucket, granted = Bucket.full(limits, midnight - 1).take(limits, 20)
    assert (granted, bucket.refusal(limits)) == (10, "daily")
    assert bucket.rolled(limits, midnight - 0.001).room(limits) == 0
    assert bucket.rolled(limits, midnight).room(limits) == 10


def test_downgrade_leaves_nothing_and_upgrade_opens_at_once() -> None:
    """Usage is stored, not tokens: other limits count from the next request on, in both directions."""
    small, large = Limits(100, 10_000, 50), Limits(10_000, 1_000_000, 5_000)
    bucket, _ = Bucket.full(PREMIUM, NOON).take(PREMIUM, 600)
    assert bucket.room(small) == 0
    assert bucket.room(large) == 10_000 + 500 - 600


def test_clock_that_steps_back_is_waited_out_and_a_wrong_one_is_not() -> None:
    """A bucket up to two minutes ahead stays; one further ahead returns to now, its usage kept, its carry lost."""
    bucket, _ = Bucket.full(PREMIUM, NOON + 120).take(PREMIUM, 7)
    assert bucket.rolled(PREMIUM, NOON) == bucket
    ahead = bucket.rolled(PREMIUM, NOON - 60)
    assert (ahead.slot, ahead.used, ahead.used_today, ahead.carried) == (int(NOON - 60) // 60, 7, 7, 0)


def test_verdict_tells_every_figure_of_the_contract() -> None:
    """The announced figures are those after the decision, and now + retry_after is the reset to the second."""
    bucket = Bucket(int(NOON) // 60, 153, 500, int(NOON) // DAY_SECONDS, 4_766)
    told = verdict(bucket, PREMIUM, NOON + 14.9)
    assert (told.remaining_minute, told.burst_remaining, told.remaining_day) == (847, 500, 95_234)
    assert (told.minute_used, told.daily_used) == (153, 4_766)
    assert (told.reset_minute, told.reset_day) == (NOON + 60, NOON + 43_200)
    refused = verdict(bucket, PREMIUM, NOON + 14.9, "minute")
    assert refused.now + refused.retry_after == refused.reset_at == NOON + 60


@given(limits_of_any_size, st.integers(0, 200))
def test_remaining_minute_never_over_promises(limits: Limits, used: int) -> None:
    """Remaining-Minute never exceeds the limit, and with the burst's rest it is what the minute still admits."""
    bucket = Bucket.full(limits, NOON).charged(used)
    told = verdict(bucket, limits, NOON)
    assert 0 <= told.remaining_minute <= limits.per_minute
    assert told.remaining_minute + told.burst_remaining == bucket.tokens(limits)


@given(limits_of_any_size, st.integers(1, 50))
def test_shares_together_stay_within_the_limits(limits: Limits, workers: int) -> None:
    """All workers' shares add up to the limits at most, or to one request a worker where the limits are smaller."""
    part = share(limits, workers)
    assert workers * (part.per_minute + part.burst) <= max(limits.per_minute, workers) + limits.burst
    assert workers * part.per_day <= max(limits.per_day, workers)
    assert part.per_minute >= 1
    assert part.per_day >= 1


@given(limits_of_any_size, st.integers(0, 120), st.integers(0, 500), st.integers(1, 9))
def test_outage_is_no_gift(limits: Limits, used: int, used_today: int, workers: int) -> None:
    """A local bucket starts with the share or with the worker's part of what Redis last had, whichever is less."""
    known = Bucket(int(NOON) // 60, used, limits.burst, int(NOON) // DAY_SECONDS, used_today)
    part = share(limits, workers)
    local = stand_in(known, limits, workers, NOON)
    assert local.tokens(part) == min(part.per_minute + part.burst, known.tokens(limits) // workers)
    assert local.day_left(part) == min(part.per_day, known.day_left(limits) // workers)


def test_unknown_organization_starts_with_its_share() -> None:
    """An organization that Redis never spoke of starts an outage with the whole share, burst included."""
    assert stand_in(None, PREMIUM, 4, NOON).room(share(PREMIUM, 4)) == 375
