"""Whose a presented admin token is; how ADMIN_TOKENS is read stands in test_settings.py."""

from __future__ import annotations

import hmac

import pytest

from app.core.process.admin_token import digest, holder, parse

TOKENS = parse(",".join(f"user-{number}:viewer:{str(number) * 32}" for number in range(5)))


@pytest.mark.parametrize("presented", ["0" * 32, "2" * 32, "4" * 32, "x" * 32])
def test_every_token_is_looked_at(presented: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right or wrong, first or last: all digests are compared, each by hmac.compare_digest, so time tells nothing."""
    compared = []
    compare = hmac.compare_digest

    def recorded(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", recorded)
    found = holder(TOKENS, digest(presented))
    assert (found.name if found else None) == (None if presented[0] == "x" else f"user-{presented[0]}")
    assert compared == [token.digest for token in TOKENS]
