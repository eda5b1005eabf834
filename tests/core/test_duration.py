from __future__ import annotations

import pytest

from app.core.process.duration import full, short


@pytest.mark.parametrize(
    ("seconds", "long_form", "short_form"),
    [
        (900, "15m0s", "15m"),
        (90, "1m30s", "1m30s"),
        (2, "2s", "2s"),
        (60, "1m0s", "1m"),
        (3600, "1h0m0s", "1h"),
        (5400, "1h30m0s", "1h30m"),
        (3601, "1h0m1s", "1h1s"),
        (86400, "24h0m0s", "24h"),
        (0.5, "0.5s", "0.5s"),
        (59.9999, "1m0s", "1m"),
        (0, "0s", "0s"),
    ],
)
def test_notation(seconds: float, long_form: str, short_form: str) -> None:
    """Durations read in the log as the contract writes them."""
    assert full(seconds) == long_form
    assert short(seconds) == short_form
