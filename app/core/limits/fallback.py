"""Who decides while Redis is away: this worker alone, by its share of the limits, with an account for Redis."""

from __future__ import annotations

from typing import Final, NamedTuple, TypeVar

from app.core.limits.bucket import Bucket, share, stand_in, verdict
from app.core.model import Limits, Organization, Verdict

ORGANIZATIONS_MAX: Final = 100_000
"""Bounds each table (about 250 bytes an entry). The longest known goes first; its next answer brings it back."""


_Value = TypeVar("_Value")


class Debt(NamedTuple):
    """Requests admitted without Redis: `in_minute` of them in `slot`, `in_day` in `day` (both counted since 1970)."""

    organization_id: str
    limits: Limits
    slot: int
    in_minute: int
    day: int
    in_day: int

    def plus(self, later: Debt) -> Debt:
        """Both together. What an ended minute or day admitted can be charged to nobody any more."""
        in_minute = later.in_minute + (self.in_minute if self.slot == later.slot else 0)
        in_day = later.in_day + (self.in_day if self.day == later.day else 0)
        return later._replace(in_minute=in_minute, in_day=in_day)


class Known(NamedTuple):
    """An organization's bucket as Redis told it last, under the limits that it was asked with."""

    organization_id: str
    limits: Limits
    bucket: Bucket


class Fallback:
    """Local buckets of all organizations. `workers` is how many share the limits: what was heard last, 1 at least."""

    def __init__(self, workers: int, *, admits_all: bool = False, organizations_max: int = ORGANIZATIONS_MAX) -> None:
        self.workers = workers
        self._admits_all = admits_all
        self._organizations_max = organizations_max
        self._known: dict[str, tuple[Limits, Bucket]] = {}  # plain: one is made for every answer of Redis's
        self._buckets: dict[str, Bucket] = {}
        self._debts: dict[str, Debt] = {}

    @property
    def indebted(self) -> int:
        """How many organizations have debts."""
        return len(self._debts)

    def know(self, organization_id: str, limits: Limits, bucket: Bucket) -> None:
        """Remembers what Redis said: an outage is no gift, so a local bucket starts with a part of what was left."""
        self._put(self._known, organization_id, (limits, bucket))

    def recall(self) -> list[Known]:
        """All that Redis said on the latest day, for a Redis that has forgotten it."""
        today = max((bucket.day for _, bucket in self._known.values()), default=0)
        return [Known(id_, *known) for id_, known in self._known.items() if known[1].day == today]

    def decide(self, organization: Organization, now: float, *, owing: bool = True) -> Verdict:
        """Admits or refuses one request at `now` (unix seconds); an admitted one becomes a debt if `owing`."""
        limits, bucket = self._bucket(organization, now)
        refused_by = None if self._admits_all else bucket.refusal(limits)
        if refused_by is None:
            bucket = bucket.charged(1)
            if owing:
                self._owe(Debt(organization.id, organization.limits, bucket.slot, 1, bucket.day, 1))
        self._put(self._buckets, organization.id, bucket)
        return verdict(bucket, limits, now, refused_by, "open" if self._admits_all else "local")

    def look(self, organization: Organization, now: float) -> Verdict:
        """What this worker's share stands at, without deciding: nobody is admitted (the fallback "closed")."""
        limits, bucket = self._bucket(organization, now)
        return verdict(bucket, limits, now, None, "closed")

    def _bucket(self, organization: Organization, now: float) -> tuple[Limits, Bucket]:
        limits = share(organization.limits, self.workers)
        bucket = self._buckets.get(organization.id)
        if bucket is None:
            known = self._known.get(organization.id)
            bucket = stand_in(known and known[1], organization.limits, self.workers, now)
        return limits, bucket.rolled(limits, now)

    def take_debts(self, count: int) -> list[Debt]:
        """Hands over the debts of `count` organizations, the oldest first."""
        return [self._debts.pop(id_) for id_ in list(self._debts)[:count]]

    def restore(self, debts: list[Debt]) -> None:
        """Takes back debts that Redis could not be told."""
        for debt in debts:
            since = self._debts.pop(debt.organization_id, None)
            self._put(self._debts, debt.organization_id, debt if since is None else debt.plus(since))

    def end(self) -> None:
        """Redis decides again: the next outage starts from what it will have said by then."""
        self._buckets.clear()

    def _owe(self, debt: Debt) -> None:
        before = self._debts.get(debt.organization_id)
        self._put(self._debts, debt.organization_id, debt if before is None else before.plus(debt))

    def _put(self, table: dict[str, _Value], organization_id: str, value: _Value) -> None:
        if len(table) >= self._organizations_max and organization_id not in table:
            del table[next(iter(table))]
        table[organization_id] = value
