"""One call of the limiter's script: packed by hand, as coredis would."""

from __future__ import annotations

import pytest
from coredis._packer import Packer
from hypothesis import given
from hypothesis import strategies as st

from app.core.limits.bucket import Bucket
from app.core.limits.question import Answer, Ask, outcome, packed
from app.core.model import Limits
from app.core.redis.refusals import RedisRefusal, RedisUnavailable

COUNTS = st.integers(0, 2**53)
SHA = "0123456789abcdef" * 2 + "01234567"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_a_call_is_packed_as_coredis_packs_it(id_: str, minute: int, day: int, burst: int, want: int, at: int) -> None:
    """Whatever the organization's id and the numbers: byte for byte what the library makes of the same command."""
    command = ("EVALSHA", SHA, 1, f"rl:{{{id_}}}", minute, burst, day, want, at)
    expected = b"".join(Packer("utf-8").pack_commands([command]))
    assert packed(SHA, Ask(id_, Limits(minute, day, burst), want), at) == expected


def test_what_an_answer_says() -> None:
    """The eight numbers find their places; a refusal stays what it is."""
    answer = outcome(b"3 900 500 7000 29700000 20625 1782000000 250000")
    assert isinstance(answer, Answer)
    assert (answer.granted, answer.now) == (3, 1_782_000_000.25)
    assert answer.bucket == Bucket(slot=29_700_000, used=900, carried=500, day=20_625, used_today=7_000)
    refusal = RedisRefusal("NOSCRIPT", "No matching script")
    assert outcome(refusal) is refusal


@pytest.mark.parametrize("answer", [None, 3, [1], b"", b"1 2 3", b"1 2 3 4 5 6 7 x", b"1 2 3 4 5 6 7 8 9"])
def test_what_is_no_answer_is_none(answer: object) -> None:
    """What has another shape decides nothing, and nobody waits for ever: it is as if Redis were away."""
    assert isinstance(outcome(answer), RedisUnavailable)
