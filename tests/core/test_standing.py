"""When a target is set aside, for how long, and what brings it back."""

from __future__ import annotations

import pytest

from app.core.relay.standing import PAUSE_SECONDS_MAX, Standing


def longest() -> float:
    """The jitter that takes nothing off a pause."""
    return 0.0


def fail(standing: Standing, times: int, now: float) -> None:
    for _ in range(times):
        standing.failed(now, now)


def test_three_failures_in_a_row_set_aside() -> None:
    """Two failures, or three with a whole answer between them, leave a target well; the third in a row does not."""
    standing = Standing(longest)
    fail(standing, 2, 1.0)
    assert standing.is_well
    standing.answered(2.0)
    fail(standing, 2, 3.0)
    assert standing.is_well
    fail(standing, 1, 3.0)
    assert not standing.is_well
    assert standing.state(3.0) == "aside"


def test_pauses_double_up_to_a_bound() -> None:
    """Each failed trial doubles the pause, from one second to thirty."""
    standing, now, pauses = Standing(longest), 0.0, []
    fail(standing, 3, now)
    for _ in range(8):
        pauses.append(standing.retry_at - now)
        now = standing.retry_at
        assert standing.may_be_tried(now, can_repeat=True)
        standing.failed(now, now)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 1.0), (0.5, 0.75), (0.999, 0.5005)])
def test_chance_shortens_a_pause(jitter: float, seconds: float) -> None:
    """Up to half of a pause is taken off, so that workers do not come back all at once; the bound is never passed."""
    standing = Standing(lambda: jitter)
    fail(standing, 3, 0.0)
    assert standing.retry_at == pytest.approx(seconds)
    for _ in range(20):
        standing.failed(standing.retry_at, standing.retry_at)
        assert standing.pause_seconds <= PAUSE_SECONDS_MAX


def test_what_was_under_way_says_nothing_new() -> None:
    """Requests from before a target was set aside neither prolong the pause nor bring the target back."""
    standing = Standing(longest)
    fail(standing, 3, 10.0)
    standing.answered(9.0)
    for now in (10.5, 12.0):
        standing.failed(9.0, now)
    assert standing.is_aside
    assert standing.retry_at == 11.0


def test_failures_within_the_pause_do_not_prolong_it() -> None:
    """When all targets stand aside they get requests all the same: those failures are no trials."""
    standing = Standing(longest)
    fail(standing, 3, 10.0)
    fail(standing, 5, 10.5)
    assert standing.retry_at == 11.0


def test_a_whole_answer_forgets_the_pauses() -> None:
    """After it the next pause is the first again."""
    standing = Standing(longest)
    fail(standing, 3, 0.0)
    fail(standing, 1, 1.0)
    standing.answered(3.0)
    assert standing.is_well
    fail(standing, 3, 4.0)
    assert standing.pause_seconds == 1


def test_a_begun_answer_is_believed_once() -> None:
    """A trial whose answer goes on restores the target, but its next failure sets it aside, for longer."""
    standing = Standing(longest)
    fail(standing, 3, 0.0)
    standing.began_to_answer()
    assert standing.is_well
    fail(standing, 1, 5.0)
    assert not standing.is_well
    assert standing.pause_seconds == 2


def test_who_may_try() -> None:
    """A request that can be repeated tries when the pause is over; another only after as long again without one."""
    standing = Standing(longest)
    assert not standing.may_be_tried(99.0, can_repeat=True)
    fail(standing, 3, 0.0)
    assert [standing.may_be_tried(now, can_repeat=True) for now in (0.9, 1.0)] == [False, True]
    assert [standing.may_be_tried(now, can_repeat=False) for now in (1.0, 1.9, 2.0)] == [False, False, True]
    assert standing.state(1.0) == "trying"


def test_probes_and_requests_do_not_outvote_each_other() -> None:
    """Two failed probes make a target unhealthy whatever requests say, one good one ends that and nothing else."""
    standing = Standing(longest)
    standing.probed(False)
    assert standing.is_well
    standing.probed(False)
    standing.answered(1.0)
    assert standing.state(1.0) == "unhealthy"
    fail(standing, 3, 2.0)
    assert not standing.may_be_tried(9.0, can_repeat=True)
    standing.probed(True)
    assert not standing.is_well
    assert standing.may_be_tried(9.0, can_repeat=True)
