from __future__ import annotations

from app.core.limits.breaker import Breaker


def middle() -> float:
    return 0.5


def test_opens_after_three_failures_in_a_row() -> None:
    """Two failures, or three with a success between them, leave it closed; the third in a row opens it."""
    breaker = Breaker(middle)
    breaker.failed()
    breaker.failed()
    assert not breaker.is_open
    breaker.succeeded()
    breaker.failed()
    assert not breaker.is_open
    breaker.failed()
    breaker.failed()
    assert breaker.is_open


def test_pauses_double_from_half_a_second_to_five() -> None:
    """While it is open every look that fails doubles the pause, up to five seconds; closed means no pause at all."""
    breaker = Breaker(middle)
    assert breaker.next_pause_seconds() == 0
    for _ in range(3):
        breaker.failed()
    assert [breaker.next_pause_seconds() for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_pauses_vary_by_a_fifth() -> None:
    """A fleet's workers do not look all at once: a pause is up to 20 % shorter or longer."""
    for jitter, expected in ((0.0, 0.4), (1.0, 0.6)):
        breaker = Breaker(lambda jitter=jitter: jitter)  # type: ignore[misc]
        for _ in range(3):
            breaker.failed()
        assert abs(breaker.next_pause_seconds() - expected) < 1e-9


def test_a_probe_closes_but_only_real_work_forgets_the_pauses() -> None:
    """A Redis that answers probes and fails at work is looked at ever more rarely."""
    breaker = Breaker(middle)
    for expected in (0.5, 1.0):
        for _ in range(3):
            breaker.failed()
        assert breaker.next_pause_seconds() == expected
        breaker.closed()
        assert not breaker.is_open
    breaker.succeeded()
    for _ in range(3):
        breaker.failed()
    assert breaker.next_pause_seconds() == 0.5
