"""An organization's bucket seen from outside of the gateways: what it holds, and giving it back full."""

from __future__ import annotations

from typing import Final

from app.core.limits.bucket import verdict
from app.core.limits.tally import Answer, Ask, Tally
from app.core.model import Organization, Verdict
from app.core.redis.link import RedisLink

DEADLINE_SECONDS: Final = 0.5
"""A person waits here, no request of a client's: ten times what the gateways allow themselves."""


class Gauge:
    """Over an entered `link`. Its methods raise RedisUnavailable or RedisRefusal: without Redis nobody knows."""

    def __init__(self, link: RedisLink) -> None:
        self._tally = Tally(link, node="gauge", deadline_seconds=DEADLINE_SECONDS)

    async def live(self, organization: Organization) -> Verdict:
        """The figures as they stand, charging nothing; `refused_by` says what the next request would run into."""
        [outcome] = await self._tally.take([Ask(organization.id, organization.limits, 0)])
        if not isinstance(outcome, Answer):
            raise outcome
        bucket = outcome.bucket
        return verdict(bucket, organization.limits, outcome.now, bucket.refusal(organization.limits))

    async def reset(self, organization_id: str) -> None:
        """Nothing used, the whole burst saved up, minute and day alike."""
        await self._tally.forget(organization_id)
