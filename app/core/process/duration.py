"""Durations as operators read them in the log, in the notation of Go's time.Duration. Pure."""

from __future__ import annotations


def _units(seconds: float) -> tuple[int, int, str]:
    minutes, rest = divmod(round(max(0.0, seconds), 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    return hours, minutes, f"{round(rest, 3):g}"


def full(seconds: float) -> str:
    """Every unit below the largest: 900 is `15m0s`, 3600 is `1h0m0s`, 2 is `2s`, 1.5 is `1.5s`."""
    hours, minutes, rest = _units(seconds)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def short(seconds: float) -> str:
    """Without units that are zero: 900 is `15m`, 90 is `1m30s`, 3600 is `1h`, 0 is `0s`."""
    hours, minutes, rest = _units(seconds)
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else "", f"{rest}s" if rest != "0" else ""]
    return "".join(parts) or "0s"
