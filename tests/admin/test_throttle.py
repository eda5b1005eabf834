"""How wrong tokens slow their address down, by an injected clock."""

from __future__ import annotations

from admin.throttle import ADDRESSES_MAX, FORGET_SECONDS, FREE_FAILURES, PAUSE_SECONDS_MAX, WAIT_SECONDS_MAX, Throttle

GOOD, BAD = b"good", b"bad"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def failing(throttle: Throttle, address: str, times: int) -> None:
    for _ in range(times):
        throttle.failed(address)


def test_the_first_mistakes_are_free() -> None:
    """Some wrong tokens cost nothing, then each wait doubles up to a bound."""
    clock = Clock()
    throttle = Throttle(clock)
    waits = []
    for _ in range(12):
        waits.append(throttle.wait_seconds("10.0.0.1", BAD))
        clock.now += waits[-1]
        throttle.failed("10.0.0.1")
    assert waits[:FREE_FAILURES] == [0.0] * FREE_FAILURES
    assert waits[FREE_FAILURES : FREE_FAILURES + 3] == [0.1, 0.2, 0.4]
    assert waits[-1] == PAUSE_SECONDS_MAX


def test_waits_of_one_address_queue_up() -> None:
    """Attempts at the same moment wait one after the other, and those beyond the bound are not queued."""
    throttle = Throttle(Clock())
    failing(throttle, "10.0.0.1", 20)
    waits = [throttle.wait_seconds("10.0.0.1", BAD) for _ in range(5)]
    assert waits[:2] == [2.0, 4.0]
    assert all(wait > WAIT_SECONDS_MAX for wait in waits[2:])
    assert waits[2:] == [6.0] * 3


def test_the_neighbours_do_not_wait() -> None:
    """Another address waits for nothing; a /64 of IPv6 is one address."""
    throttle = Throttle(Clock())
    failing(throttle, "2001:db8::1", 20)
    assert throttle.wait_seconds("2001:db8::ffff", BAD) > 0
    assert throttle.wait_seconds("2001:db8:0:1::1", BAD) == 0
    assert throttle.wait_seconds("10.0.0.2", BAD) == 0


def test_a_proven_token_never_waits() -> None:
    """A token that was right from an address goes on there whatever others try, and waits elsewhere as all do."""
    throttle = Throttle(Clock())
    throttle.succeeded("10.0.0.1", GOOD)
    for address in ("10.0.0.1", "10.0.0.2"):
        failing(throttle, address, 20)
    assert throttle.wait_seconds("10.0.0.1", GOOD) == 0
    assert throttle.wait_seconds("10.0.0.1", BAD) > 0
    assert throttle.wait_seconds("10.0.0.2", GOOD) > 0


def test_time_forgets() -> None:
    """An address that behaved for five minutes begins anew."""
    clock = Clock()
    throttle = Throttle(clock)
    failing(throttle, "10.0.0.1", 20)
    clock.now += FORGET_SECONDS + 1
    assert throttle.wait_seconds("10.0.0.1", BAD) == 0
    assert throttle.failed("10.0.0.1") == 1


def test_the_table_is_bounded() -> None:
    """An attacker with many addresses fills no memory: the one that failed longest ago is forgotten."""
    throttle = Throttle(Clock())
    failing(throttle, "10.0.0.1", 20)
    for number in range(ADDRESSES_MAX):
        throttle.failed(f"172.16.{number // 256}.{number % 256}")
    assert throttle.wait_seconds("10.0.0.1", BAD) == 0
    assert len(throttle._records) == ADDRESSES_MAX
