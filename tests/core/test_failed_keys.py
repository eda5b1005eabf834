"""The bucket of wrong keys that each address has, by an injected clock."""

from __future__ import annotations

from app.core.keys.failed_keys import FAILURE_SECONDS, FAILURES_AT_ONCE, WAIT_SECONDS_MAX, FailedKeys


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def fail(failed: FailedKeys, address: str, times: int) -> None:
    for _ in range(times):
        failed.note(address)


def test_a_burst_and_then_one_at_a_time() -> None:
    """Twenty wrong keys pass, the next one has to wait a second, and so does each one after it."""
    clock = Clock()
    failed = FailedKeys(clock)
    for _ in range(FAILURES_AT_ONCE):
        assert failed.wait_seconds("192.0.2.1") == 0
        failed.note("192.0.2.1")
    for _ in range(3):
        assert failed.wait_seconds("192.0.2.1") == 1
        clock.now += FAILURE_SECONDS
        assert failed.wait_seconds("192.0.2.1") == 0
        failed.note("192.0.2.1")


def test_time_heals() -> None:
    """An address that behaved for as long as its failures take to drain has all of its tries again."""
    clock = Clock()
    failed = FailedKeys(clock)
    fail(failed, "192.0.2.1", FAILURES_AT_ONCE)
    clock.now += FAILURES_AT_ONCE * FAILURE_SECONDS
    fail(failed, "192.0.2.1", FAILURES_AT_ONCE - 1)
    assert failed.wait_seconds("192.0.2.1") == 0
    failed.note("192.0.2.1")
    assert failed.wait_seconds("192.0.2.1") == 1


def test_the_wait_is_bounded() -> None:
    """A thousand wrong keys that were under way at once are remembered, but not held against an address for long."""
    clock = Clock()
    failed = FailedKeys(clock)
    fail(failed, "192.0.2.1", 1_000)
    assert failed.wait_seconds("192.0.2.1") == WAIT_SECONDS_MAX
    clock.now += WAIT_SECONDS_MAX
    assert failed.wait_seconds("192.0.2.1") == 0


def test_the_neighbours_do_not_wait() -> None:
    """Another address is not concerned; a /64 of IPv6 is one address, and so is IPv4 in IPv6 clothes."""
    failed = FailedKeys(Clock())
    fail(failed, "2001:db8::1", FAILURES_AT_ONCE)
    fail(failed, "::ffff:192.0.2.1", FAILURES_AT_ONCE)
    assert failed.wait_seconds("2001:db8::ffff:1") == 1
    assert failed.wait_seconds("2001:db8:0:1::1") == 0
    assert failed.wait_seconds("192.0.2.1") == 1
    assert failed.wait_seconds("192.0.2.2") == 0


def test_memory_is_bounded() -> None:
    """An attacker with many addresses fills no memory: the one that failed longest ago begins anew."""
    failed = FailedKeys(Clock(), addresses_max=10)
    fail(failed, "192.0.2.1", FAILURES_AT_ONCE)
    for number in range(9):
        failed.note(f"198.51.100.{number}")
    assert failed.wait_seconds("192.0.2.1") == 1
    failed.note("198.51.100.9")
    assert (len(failed), failed.wait_seconds("192.0.2.1")) == (10, 0)
