"""What a key would be answered: each reason by itself, without a server."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from admin.outlook import ADMITTED, outlook, status_of
from app.core.data.records import KeyRecord
from app.core.keys.holding import HeldAs, Holding
from app.core.limits.bucket import Bucket, verdict
from app.core.model import PLANS, Credential, Organization, Verdict

NOW = 1_800_000_000.0
AT = datetime.fromtimestamp(NOW, UTC)
ACME = Organization("org-1", "basic", PLANS["basic"])
GOOD = Credential("key-1", ACME)
REVOKED = Credential("key-1", ACME, revoked=True)
EXPIRED = Credential("key-1", ACME, expires_at=NOW)
INACTIVE = Credential("key-1", Organization("org-1", "basic", PLANS["basic"], active=False))


def record(**values: object) -> KeyRecord:
    plain = {"id": "key-1", "organization_id": "org-1", "name": "a key", "env": "test", "prefix": "sk_test_0000"}
    nothing = dict.fromkeys(("last_used_at", "expires_at", "revoked_at", "revoked_reason", "replaced_by"))
    known = {"status": "active", "created_at": AT, "created_by": "ann", "version": 1, "scopes": ()}
    return KeyRecord(**{**plain, **nothing, **known, **values})  # type: ignore[arg-type]


def bucket(used: int, used_today: int = 0) -> Verdict:
    held = Bucket(int(NOW) // 60, used, 50, int(NOW) // 86_400, used_today)
    return verdict(held, PLANS["basic"], NOW, held.refusal(PLANS["basic"]))


@pytest.mark.parametrize(
    ("found", "key", "held", "status", "message", "why"),
    [
        (None, None, None, 403, "invalid API key", "no key like this"),
        (REVOKED, record(revoked_at=AT, revoked_reason="lost"), bucket(0), 403, "API key has been revoked", ": lost"),
        (EXPIRED, record(expires_at=AT, replaced_by="key-2"), bucket(0), 403, "API key has expired", "is key-2"),
        (EXPIRED, record(expires_at=AT), None, 403, "API key has expired", "it ended at 2027-01-15T08:00:00Z"),
        (INACTIVE, record(), bucket(0), 403, "organization is inactive", "deactivated"),
        (GOOD, record(), bucket(150), 429, "Rate limit exceeded: minute limit reached", "150 requests"),
        (GOOD, record(), bucket(0, 10_000), 429, "Rate limit exceeded: daily limit reached", "2027-01-16T00:00:00Z"),
        (GOOD, record(), bucket(10), 200, ADMITTED, "140 requests left"),
        (GOOD, record(), bucket(10, 9_995), 200, ADMITTED, "5 requests left"),
        (GOOD, None, None, 200, ADMITTED, "while Redis is away"),
        (INACTIVE, None, bucket(150), 403, "organization is inactive", "deactivated"),
    ],
)
def test_the_answer_and_its_reason(
    found: Credential | None, key: KeyRecord | None, held: Verdict | None, status: int, message: str, why: str
) -> None:
    """Status and message are the gateway's, in its order (the key before the limits); the reason has the figures."""
    told = outlook(found, key, held, NOW)
    assert (told.status, told.message) == (status, message)
    assert why in told.why


@pytest.mark.parametrize(
    ("held_as", "credential", "status"),
    [
        ("static", GOOD, 200),
        ("cached", GOOD, 200),
        ("cached", REVOKED, 403),
        ("cached", EXPIRED, 403),
        ("in doubt", GOOD, None),
        ("unknown", None, 403),
        ("absent", None, None),
    ],
)
def test_what_memory_leads_to(held_as: HeldAs, credential: Credential | None, status: int | None) -> None:
    """A worker that relies on what it holds answers by it; one that does not asks the database first."""
    assert status_of(Holding(held_as, credential), NOW) == status
