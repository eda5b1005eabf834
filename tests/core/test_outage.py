from __future__ import annotations

from collections.abc import Iterator

import pytest
from loguru import logger

from app.core.limits.outage import QUIET_SECONDS, OutageLog


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def logged() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), filter="app.core.limits.outage")
    yield lines
    logger.remove(sink)


def test_an_outage_has_two_lines(logged: list[str]) -> None:
    """However often Redis is looked for in vain, an outage is told when it begins and when it ends."""
    outage = OutageLog(clock := Clock())
    outage.ended()
    outage.began("connection lost")
    for _ in range(50):
        clock.now += 1
        outage.lasts("refused")
    outage.ended()
    assert logged == [
        "✅ Connected to Redis for rate limiting",
        "Rate limits: deciding without Redis (connection lost)",
        "Rate limits: Redis decides again after 50.000 s",
    ]


def test_blips_are_counted(logged: list[str]) -> None:
    """A Redis that is late every second makes two lines in ten seconds, and the next line says how often it was."""
    outage = OutageLog(clock := Clock())
    outage.ended()
    for _ in range(60):
        outage.began("late")
        outage.ended()
        clock.now += 1
    assert len(logged) == 1 + 2 * (60 / QUIET_SECONDS)
    assert logged[3] == "Rate limits: deciding without Redis (late; also 9 times for a moment since the last such line)"


def test_what_lasts_is_told(logged: list[str]) -> None:
    """An outage right after a blip is told at the first look in vain; a Redis that never was there is not missed."""
    outage = OutageLog(Clock())
    outage.lasts("refused")
    outage.ended()
    outage.began("late")
    outage.ended()
    outage.began("late")
    outage.lasts("refused")
    outage.lasts("refused")
    outage.ended()
    assert logged[3:] == [
        "Rate limits: deciding without Redis (refused)",
        "Rate limits: Redis decides again after 0.000 s",
    ]
