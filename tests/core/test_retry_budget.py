"""How many requests may be sent a second time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.core.relay.retry_budget import RESERVE, RetryBudget


@given(st.lists(st.sampled_from(["request", "repeat", "refunded"]), max_size=400))
def test_never_more_than_a_tenth_and_the_reserve(run: list[str]) -> None:
    """Over any stretch of any run, repeats are at most a tenth of its requests and the reserve."""
    budget = RetryBudget()
    requests, repeats = [0], [0]
    for event in run:
        spent = False
        if event == "request":
            budget.note_request()
        elif budget.spend():
            spent = event == "repeat"
            if not spent:
                budget.refund()
        requests.append(requests[-1] + (event == "request"))
        repeats.append(repeats[-1] + spent)
    lows = [repeat - request / 10 for request, repeat in zip(requests, repeats, strict=True)]
    lowest = 0.0
    for low in lows:
        lowest = min(lowest, low)
        assert low - lowest <= RESERVE + 1e-6


def test_little_traffic_can_repeat_too() -> None:
    """The reserve is there from the start, and nothing is left when it is used up; ten requests earn one more."""
    budget = RetryBudget()
    assert [budget.spend() for _ in range(RESERVE + 1)] == [True] * RESERVE + [False]
    for _ in range(9):
        budget.note_request()
    assert not budget.has_left
    budget.note_request()
    assert budget.has_left
    assert budget.spend()
