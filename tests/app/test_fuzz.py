"""A bounded fuzz run through a real gateway, in both directions. `python -m tools.fuzz` is the same for longer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tools.fuzz import Fuzz

SEED = 20_261_124
EXAMPLES = 200


@pytest.fixture(scope="module")
def fuzz() -> Iterator[Fuzz]:
    with Fuzz() as running:
        yield running


def test_what_a_backend_sees_is_what_the_client_meant(fuzz: Fuzz) -> None:
    """Spoilt requests are refused and the connection closed, or arrive once, as they were meant; good ones always."""
    counted = fuzz.play("requests", SEED, EXAMPLES)
    assert counted["played"] >= EXAMPLES
    assert counted["came through"] > EXAMPLES // 4


def test_what_a_client_sees_is_one_answer_or_a_failure(fuzz: Fuzz) -> None:
    """Spoilt answers are a 502, visibly cut, or the backend's own; the next request never gets what was not its own."""
    counted = fuzz.play("answers", SEED, EXAMPLES)
    assert counted["played"] >= EXAMPLES
    assert counted["came through"] > EXAMPLES // 8
