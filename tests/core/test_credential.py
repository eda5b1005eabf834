from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import ExpiredKey, InactiveOrganization, RevokedKey
from app.core.keys.credential import Env, digest, is_well_formed, mint, prefix, refusal
from app.core.model import PLANS, Credential, Organization

ACTIVE = Organization("1", "basic", PLANS["basic"])
INACTIVE = Organization("1", "basic", PLANS["basic"], active=False)


@pytest.mark.parametrize("env", ["test", "live"])
def test_minted(env: Env) -> None:
    """A minted key has the promised shape and is recognised."""
    key = mint(env)
    assert re.fullmatch(f"sk_{env}_[0-9a-f]{{32}}", key)
    assert is_well_formed(key.encode())
    assert prefix(key) == key[:12]


def test_minted_from_the_source_given() -> None:
    """All 128 bits of a key come from the random source, and no two keys are alike."""
    assert mint("live", lambda count: bytes(range(count))) == "sk_live_000102030405060708090a0b0c0d0e0f"
    assert len({mint("test") for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"sk_live_",
        b"sk_live_" + b"a" * 31,
        b"sk_live_" + b"a" * 33,
        b"sk_live_" + b"A" * 32,
        b"sk_live_" + b"g" * 32,
        b"sk_prod_" + b"a" * 32,
        b"SK_live_" + b"a" * 32,
        b" sk_live_" + b"a" * 32,
        b"sk_live_" + b"a" * 32 + b"\n",
        b"sk_live_" + "٥".encode() * 16,
    ],
)
def test_malformed(key: bytes) -> None:
    """What the database cannot hold is recognised as no key, a line feed at the end included."""
    assert not is_well_formed(key)


@given(st.binary(max_size=80))
def test_digest_of_anything(key: bytes) -> None:
    """The digest is SHA-256 of the client's very bytes, whichever way they were decoded."""
    assert digest(key) == hashlib.sha256(key).digest() == digest(key.decode("utf-8", "surrogateescape"))


def test_refusals_in_their_order() -> None:
    """Revoked comes before expired, expired before an inactive organization; a good key is not refused."""
    assert isinstance(refusal(Credential("k", INACTIVE, revoked=True, expires_at=1.0), 2.0), RevokedKey)
    assert isinstance(refusal(Credential("k", INACTIVE, expires_at=1.0), 2.0), ExpiredKey)
    assert isinstance(refusal(Credential("k", INACTIVE), 2.0), InactiveOrganization)
    assert refusal(Credential("k", ACTIVE), 2.0) is None


def test_the_moment_of_expiry() -> None:
    """A key works until its expiry and not at it."""
    credential = Credential("k", ACTIVE, expires_at=100.0)
    assert refusal(credential, 99.999) is None
    assert isinstance(refusal(credential, 100.0), ExpiredKey)
