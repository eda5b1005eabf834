from __future__ import annotations

from app.core.limits.bucket import Bucket
from app.core.limits.fallback import Debt, Fallback, Known
from app.core.model import Limits, Organization

NOW = 1_900_000_830.0
SLOT, DAY = int(NOW) // 60, int(NOW) // 86_400
LIMITS = Limits(per_minute=8, per_day=100, burst=4)


def organization(id_: str) -> Organization:
    return Organization(id_, "basic", LIMITS)


def admitted(fallback: Fallback, id_: str, requests: int, now: float = NOW) -> int:
    verdicts = [fallback.decide(organization(id_), now) for _ in range(requests)]
    return sum(verdict.refused_by is None for verdict in verdicts)


def test_one_worker_admits_its_share_and_announces_it() -> None:
    """Of two workers each admits half of limit and burst; limits, remainder and mode are those of the share."""
    fallback = Fallback(2)
    assert admitted(fallback, "a", 20) == 6
    refused = fallback.decide(organization("a"), NOW)
    assert refused.limits == Limits(per_minute=4, per_day=50, burst=2)
    assert (refused.refused_by, refused.mode, refused.remaining_minute) == ("minute", "local", 0)
    assert admitted(fallback, "a", 20, NOW + 60) == 4


def test_what_redis_said_last_bounds_the_start() -> None:
    """An organization that had two requests left gets its part of those two, and the share from the next minute on."""
    fallback = Fallback(2)
    fallback.know("a", LIMITS, Bucket(SLOT, 10, 4, DAY, 10))
    assert admitted(fallback, "a", 20) == 1
    assert admitted(fallback, "a", 20, NOW + 60) == 4


def test_open_admits_all_and_counts_all() -> None:
    """RATE_LIMIT_FALLBACK=open refuses nothing, reports what was used, and owes every request to Redis."""
    fallback = Fallback(2, admits_all=True)
    assert admitted(fallback, "a", 20) == 20
    last = fallback.decide(organization("a"), NOW)
    assert (last.mode, last.refused_by, last.minute_used, last.remaining_minute) == ("open", None, 21, 0)
    assert fallback.take_debts(9) == [Debt("a", LIMITS, SLOT, 21, DAY, 21)]


def test_debts_are_admissions_by_minute_and_day() -> None:
    """Only admitted requests are owed; those of an ended minute are owed to the day alone."""
    fallback = Fallback(1)
    admitted(fallback, "a", 20)
    admitted(fallback, "a", 3, NOW + 60)
    assert fallback.take_debts(9) == [Debt("a", LIMITS, SLOT + 1, 3, DAY, 15)]
    assert fallback.indebted == 0


def test_debts_come_back_when_they_could_not_be_pushed() -> None:
    """Debts that were handed over and restored add up with those made meanwhile, each request once."""
    fallback = Fallback(1)
    admitted(fallback, "a", 5)
    pushed = fallback.take_debts(9)
    admitted(fallback, "a", 2)
    fallback.restore(pushed)
    assert fallback.take_debts(9) == [Debt("a", LIMITS, SLOT, 7, DAY, 7)]


def test_what_is_worth_reminding_of() -> None:
    """For a Redis that forgot everything: each organization's last bucket of the latest day, none of a day before."""
    fallback = Fallback(1)
    fallback.know("yesterday", LIMITS, Bucket(SLOT, 1, 4, DAY - 1, 50))
    fallback.know("today", LIMITS, Bucket(SLOT, 5, 4, DAY, 50))
    fallback.know("today", LIMITS, Bucket(SLOT, 6, 4, DAY, 51))
    assert fallback.recall() == [Known("today", LIMITS, Bucket(SLOT, 6, 4, DAY, 51))]
    assert Fallback(1).recall() == []


def test_tables_are_bounded() -> None:
    """However many organizations pass by, no more than the bound are remembered, and the newest are among them."""
    fallback = Fallback(1, organizations_max=3)
    for number in range(10):
        fallback.know(str(number), LIMITS, Bucket.full(LIMITS, NOW))
        fallback.decide(organization(str(number)), NOW)
    assert [debt.organization_id for debt in fallback.take_debts(99)] == ["7", "8", "9"]


def test_next_outage_starts_from_what_redis_said_since() -> None:
    """After `end` a local bucket of the last outage gives and takes nothing any more."""
    fallback = Fallback(1)
    admitted(fallback, "a", 20)
    fallback.end()
    fallback.know("a", LIMITS, Bucket(SLOT, 9, 4, DAY, 9))
    assert admitted(fallback, "a", 20) == 3
