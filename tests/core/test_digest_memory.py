from __future__ import annotations

from app.core.keys.digest_memory import DigestMemory


def test_time_and_room() -> None:
    """A digest is remembered for its time and no longer, the oldest making room for the newest."""
    memory = DigestMemory(digests_max=2, seconds=10)
    memory.add(b"a", now=0)
    memory.add(b"b", now=1)
    assert memory.holds(b"a", 9.9)
    assert not memory.holds(b"a", 10.0)
    memory.add(b"a", now=2)
    memory.add(b"c", now=3)
    assert len(memory) == 2
    assert memory.holds(b"a", 4)
    assert not memory.holds(b"b", 4)
    memory.clear()
    assert not memory.holds(b"c", 4)
