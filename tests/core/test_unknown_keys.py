from __future__ import annotations

from app.core.keys.unknown_keys import UnknownKeys


def test_time_and_room() -> None:
    """A digest is remembered as unknown for its time and no longer, the oldest making room for the newest."""
    unknown = UnknownKeys(keys_max=2, seconds=10)
    unknown.add(b"a", now=0)
    unknown.add(b"b", now=1)
    assert unknown.holds(b"a", 9.9)
    assert not unknown.holds(b"a", 10.0)
    unknown.add(b"a", now=2)
    unknown.add(b"c", now=3)
    assert len(unknown) == 2
    assert unknown.holds(b"a", 4)
    assert not unknown.holds(b"b", 4)
    unknown.clear()
    assert not unknown.holds(b"c", 4)
