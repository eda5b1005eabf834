from __future__ import annotations

from collections import Counter

import httpx

from tools.burst_report import Report, Told, told

THIS_MINUTE, NEXT_MINUTE = "2026-01-01T12:01:00Z", "2026-01-01T12:02:00Z"


def answers(rooms: list[int], *, refused: int = 0, end: str = THIS_MINUTE, mode: str = "redis") -> list[Told]:
    """Admitted answers that announced `rooms`, then refused ones."""
    statuses = [(200, room) for room in rooms] + [(429, 0)] * refused
    return [Told(status, 100, 1_000, room, 900, 0, end, "2026-01-02T00:00:00Z", mode) for status, room in statuses]


def disagreements(told: list[Told]) -> list[str]:
    return Report(told, Counter()).disagreements()


def test_announced_and_admitted_agree() -> None:
    """A burst into the limit agrees when each remainder was announced once and all that was announced was admitted."""
    report = Report(answers([2, 0, 1], refused=4), Counter({"ReadTimeout": 1}))
    assert (report.admitted, report.refused, report.disagreements()) == (3, 4, [])
    assert report.last is not None
    assert report.last.room == 0
    assert report.as_json()["agrees"] is True


def test_more_or_fewer_admitted_than_announced_is_told() -> None:
    """Too many, too few and a remainder told twice are disagreements, each in a line that names the minute."""
    (twice, many) = disagreements(answers([1, 1, 0], refused=1))
    assert "twice" in twice
    assert "2 requests were announced and 3 admitted" in many
    (few,) = disagreements(answers([9, 7, 6], refused=1))
    assert "10 requests were announced and 3 admitted" in few
    assert THIS_MINUTE in few


def test_burst_that_was_not_refused_only_bounds() -> None:
    """A burst that ended before the limit admits fewer than announced, and that agrees."""
    assert disagreements(answers([9, 7, 8])) == []


def test_refusal_with_room_is_told() -> None:
    """A 429 that itself announces remaining requests is a contradiction, with Redis and without."""
    refused = Told(429, 100, 1_000, 5, 900, 0, THIS_MINUTE, "2026-01-02T00:00:00Z", "local")
    assert "refused by an answer that announced room" in disagreements([refused])[0]


def test_minutes_are_judged_apart() -> None:
    """Past the end of a minute the next one's own announcement counts, and the report names both."""
    both = answers([1, 0], refused=1) + answers([3, 2, 1, 0], refused=2, end=NEXT_MINUTE)
    report = Report(both, Counter())
    assert report.disagreements() == []
    assert report.minutes == [THIS_MINUTE, NEXT_MINUTE]


def test_shares_of_workers_are_not_added_up() -> None:
    """Without Redis several workers announce the same remainders; that is no disagreement."""
    assert disagreements(answers([1, 1, 0, 0], refused=2, mode="local")) == []


def test_answer_without_all_fields_is_not_a_gateways() -> None:
    """An answer with a field missing or malformed tells nothing, and a burst of such answers agrees with nothing."""
    fields = {
        "x-ratelimit-limit-minute": "100",
        "x-ratelimit-limit-day": "1000",
        "x-ratelimit-remaining-minute": "9",
        "x-ratelimit-remaining-day": "99",
        "x-ratelimit-burst-remaining": "5",
        "x-ratelimit-reset-minute": THIS_MINUTE,
        "x-ratelimit-reset-day": "2026-01-02T00:00:00Z",
    }
    whole = told(502, httpx.Headers(fields))
    assert whole is not None
    assert (whole.is_admitted, whole.room, whole.mode) == (True, 14, "redis")
    for name in fields:
        assert told(200, httpx.Headers({key: value for key, value in fields.items() if key != name})) is None
    assert told(200, httpx.Headers({**fields, "x-ratelimit-limit-day": "many"})) is None
    assert disagreements([]) == ["no answer carried the limits of an organization"]
