"""What a gateway would answer to a key now, and why: the core's own judgement, with the circumstances told. Pure."""

from __future__ import annotations

from typing import NamedTuple

from app.core.data.records import KeyRecord
from app.core.envelope import rfc3339
from app.core.errors import ExpiredKey, GatewayError, InactiveOrganization, RateLimited, RevokedKey, UnknownKey
from app.core.keys import credential
from app.core.keys.holding import Holding
from app.core.limits import announce
from app.core.model import Credential, Verdict

ADMITTED = "whatever the backend answers"
UNKNOWN_UNASKED = (
    "no key like this is in the database; whether it stands in a gateway's VALID_API_KEYS cannot be told, "
    "since no gateway could be asked"
)


class Outlook(NamedTuple):
    """Status, public message, and a sentence for the people who run the gateway."""

    status: int
    message: str
    why: str


def outlook(
    found: Credential | None, key: KeyRecord | None, bucket: Verdict | None, now: float, *, asked: bool = True
) -> Outlook:
    """`found` None: nobody's key. `key` None: it stands in no database. `bucket` None: Redis cannot be asked.

    `now` is in unix seconds. `asked`: whether a gateway has told that the key is none of its static ones.
    """
    error = _refusal(found, bucket, now)
    if error is None:
        return Outlook(200, ADMITTED, _why_admitted(bucket))
    if found is None and not asked:
        return Outlook(error.status, error.message, UNKNOWN_UNASKED)
    return Outlook(error.status, error.message, _why(error, key, bucket))


def status_of(holding: Holding, now: float) -> int | None:
    """What a worker that holds this answers without asking anybody, limits apart; None when it would ask."""
    if holding.held_as == "unknown":
        return UnknownKey.status
    if holding.credential is None or holding.held_as == "in doubt":
        return None
    refusal = credential.refusal(holding.credential, now)
    return refusal.status if refusal else 200


def _refusal(found: Credential | None, bucket: Verdict | None, now: float) -> GatewayError | None:
    if found is None:
        return UnknownKey()
    refusal = credential.refusal(found, now)
    if refusal is None and bucket is not None and bucket.refused_by is not None:
        return announce.refusal(bucket)
    return refusal


def _why_admitted(bucket: Verdict | None) -> str:
    if bucket is None:
        return "the key is valid; what its organization has left cannot be told while Redis is away"
    left = min(bucket.remaining_minute + bucket.burst_remaining, bucket.remaining_day)
    return f"the key is valid, and its organization has {left} requests left until {rfc3339(bucket.reset_minute)}"


def _why(error: GatewayError, key: KeyRecord | None, bucket: Verdict | None) -> str:
    match error:
        case RevokedKey() if key is not None and key.revoked_at is not None:
            return f"it was revoked at {rfc3339(key.revoked_at.timestamp())}: {key.revoked_reason}"
        case ExpiredKey() if key is not None and key.expires_at is not None:
            successor = f"; its successor is {key.replaced_by}" if key.replaced_by else ""
            return f"it ended at {rfc3339(key.expires_at.timestamp())}{successor}"
        case InactiveOrganization():
            return "its organization is deactivated"
        case RateLimited() if bucket is not None:
            used = bucket.daily_used if bucket.refused_by == "daily" else bucket.minute_used
            return f"{used} requests were admitted; the next one is at {rfc3339(bucket.reset_at)}"
        case UnknownKey():
            return "no key like this is in the database, nor in a gateway's VALID_API_KEYS"
    return error.message
