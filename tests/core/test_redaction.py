"""Secrets in text."""

from __future__ import annotations

import pytest

from app.core.process.redaction import redact

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"key sk_test_{SECRET}.", "key sk_test_***."),
        (f"key sk_live_{SECRET}", "key sk_live_***"),
        ("prefix sk_test_0123", "prefix sk_test_0123"),
        (f"Authorization: Bearer {SECRET}", "Authorization: Bearer ***"),
        (f"authorization: bearer  {SECRET}'", "authorization: bearer  ***'"),
        (f"postgresql://user:{SECRET}@host/db", "postgresql://user:***@host/db"),
        (f"redis://:{SECRET}@host", "redis://:***@host"),
        (f"/sk%5Ftest%5f{SECRET}/x", "/sk%5Ftest%5f***/x"),
        (f"redis://:with@{SECRET}@host", "redis://:***@host"),
        (f"https://{SECRET}@host/x", "https://***@host/x"),
        (f"user=a password={SECRET} host=b", "user=a password=*** host=b"),
        ("http://host:80/path", "http://host:80/path"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_redact(text: str, expected: str) -> None:
    """Keys, bearer tokens and passwords are masked; what is public stays readable."""
    assert redact(text) == expected
