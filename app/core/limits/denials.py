"""Refusals that stay true for a moment, so that a flood of refused requests costs Redis about one question a second."""

from __future__ import annotations

from typing import Final, NamedTuple

from app.core.model import Organization, Verdict

REMEMBERED_SECONDS_MAX: Final = 1.0
"""An empty bucket stays empty until its reset; the cap is for what may change before: limits raised by hand."""
ORGANIZATIONS_MAX: Final = 10_000


class _Denial(NamedTuple):
    verdict: Verdict
    until: float
    redis_ahead_seconds: float


class Denials:
    """By organization. Times are those of one monotonic clock, in seconds, unless they say that they are Redis's."""

    def __init__(self) -> None:
        self._denials: dict[str, _Denial] = {}

    def note(self, organization: Organization, verdict: Verdict, asked_at: float, redis_now: float) -> None:
        """`verdict` refused a request that was sent at `asked_at` and decided at `redis_now` (unix, Redis's clock).

        Redis read its clock after `asked_at`, so counting from there can only end too early, never after the reset.
        """
        if len(self._denials) >= ORGANIZATIONS_MAX:
            self._denials.clear()  # each lives a second at most: forgetting one costs one question
        until = asked_at + min(REMEMBERED_SECONDS_MAX, verdict.reset_at - redis_now)
        self._denials[organization.id] = _Denial(verdict, until, redis_now - asked_at)

    def forget(self, organization_id: str) -> None:
        """Something about the organization changed: the next request is decided anew."""
        self._denials.pop(organization_id, None)

    def clear(self) -> None:
        self._denials.clear()

    def find(self, organization: Organization, now: float) -> Verdict | None:
        """The refusal that still holds at `now` for the limits as they are, its `now` brought up to date."""
        denial = self._denials.get(organization.id)
        if denial is None:
            return None
        if now >= denial.until or denial.verdict.limits != organization.limits:
            del self._denials[organization.id]
            return None
        seconds = int(now + denial.redis_ahead_seconds)
        return denial.verdict if seconds == denial.verdict.now else denial.verdict._replace(now=seconds)
