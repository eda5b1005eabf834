"""API keys as text: made, recognised, digested; and whether a known one may be used now. Pure.

A key is `sk_test_` or `sk_live_` and 32 lowercase hex characters (128 random bits). With that much entropy one round of
SHA-256 is enough: there is no dictionary to walk, so a slow password hash would only slow the gateway.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from typing import Final, Literal

from app.core.errors import ExpiredKey, Forbidden, InactiveOrganization, RevokedKey
from app.core.model import Credential

Env = Literal["test", "live"]

RANDOM_BYTES: Final = 16
PREFIX_CHARACTERS: Final = 12
_WELL_FORMED: Final = re.compile(rb"sk_(?:test|live)_[0-9a-f]{32}")


def mint(env: Env, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """A new key for `env`. `random_bytes(n)` gives n bytes; only tests replace it."""
    return f"sk_{env}_{random_bytes(RANDOM_BYTES).hex()}"


def prefix(key: str) -> str:
    """The first 12 characters: what lists show of a key, too little to use it."""
    return key[:PREFIX_CHARACTERS]


def digest(key: str | bytes) -> bytes:
    """The 32 raw bytes of SHA-256 by which a key is known; the database holds them as hex.

    Text is taken back to the bytes it came from (surrogateescape), so no key of a client's can make this raise.
    """
    return hashlib.sha256(key if isinstance(key, bytes) else key.encode("utf-8", "surrogateescape")).digest()


def is_well_formed(key: bytes) -> bool:
    """Whether the database could hold this key at all; nobody is asked about one that it could not."""
    return _WELL_FORMED.fullmatch(key) is not None


def refusal(credential: Credential, now: float) -> Forbidden | None:
    """Why this key may not be used at `now` (unix seconds): revoked, expired, inactive organization, in this order."""
    if credential.revoked:
        return RevokedKey()
    if credential.expires_at is not None and credential.has_expired(now):
        return ExpiredKey()
    if not credential.organization.active:
        return InactiveOrganization()
    return None
