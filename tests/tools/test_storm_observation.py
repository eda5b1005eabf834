from __future__ import annotations

import math
from collections import Counter

import pytest

from tools.storm import promises
from tools.storm.observation import DOOMED, KNOWN, LIMITED, UNKNOWN, Moments, Observation
from tools.storm.plan import Sample
from tools.storm.report import HEADINGS, Row, complaints, markdown

MOMENTS = Moments(broke=100.0, healing=110.0, healed=110.0, ended=120.0, revoked=102.0)


def sample(due: float, stream: str = KNOWN, answer: str = "200", seconds: float = 0.002, mode: str = "") -> Sample:
    return Sample(stream, due, seconds, answer, mode, "12:01" if due < 105 else "12:02", 0)


def steady(stream: str = KNOWN, answer: str = "200") -> list[Sample]:
    """One a second from 95 to 119."""
    return [sample(95.0 + second, stream, answer) for second in range(25)]


def observation(samples: list[Sample], moments: Moments = MOMENTS, per_minute: int = 3) -> Observation:
    return Observation(samples, moments, per_minute)


def test_phases_leave_out_the_moment_of_noticing() -> None:
    """`during` begins when every worker must have noticed, `after` when all is as before."""
    marks = [sample(110.0 + tenths / 10, mode="local", seconds=9.0) for tenths in range(21)]
    blip = sample(117.5, mode="local")
    seen = observation([*steady(), *marks, blip, sample(100.5, seconds=9.0)])
    assert seen.recovered_seconds == 2.0
    counts = [len(seen.of(KNOWN, phase)) for phase in ("before", "during", "after")]
    assert counts == [5, 8, 10]
    assert seen.latency_ms(KNOWN, "during", 0.99) == pytest.approx(2.0)
    assert math.isnan(seen.latency_ms(UNKNOWN, "during", 0.5))


def test_what_never_recovers() -> None:
    """Local limits, or unknown keys that get no answer, up to the end are no recovery."""
    local = [one._replace(mode="local") for one in steady()]
    assert observation(local).recovered_seconds is None
    assert observation([*steady(), *steady(UNKNOWN, "503")]).recovered_seconds is None
    assert observation(steady()).recovered_seconds == 0.0
    assert not promises.recovers(observation(local)).is_kept


def test_overshoot_is_counted_by_the_minute_that_was_charged() -> None:
    """Three a minute: five in one and two in the next are two too many; refusals and other streams do not count."""
    first = [sample(100.0 + number / 10, LIMITED) for number in range(5)]
    second = [sample(106.0, LIMITED), sample(107.0, LIMITED), sample(108.0, LIMITED, "429"), *steady()]
    seen = observation([*first, *second])
    assert seen.overshoot == 2
    assert promises.limits_hold(1)(seen).is_kept
    assert not promises.limits_hold(3)(seen).is_kept


def test_revocation_is_measured_to_the_last_request_let_in() -> None:
    """Requests that were sent before the revocation do not count; without a revocation there is no figure."""
    doomed = [sample(101.9, DOOMED), sample(103.5, DOOMED), sample(103.6, DOOMED, "403")]
    assert observation(doomed).revocation_seconds == pytest.approx(1.5)
    assert observation([sample(101.0, DOOMED)]).revocation_seconds == 0.0
    assert math.isnan(observation(doomed, Moments(100.0, 110.0, 110.0, 120.0)).revocation_seconds)
    assert not promises.revoked_within(1)(observation(doomed)).is_kept


def test_known_keys_are_seen_at_all() -> None:
    """A load that sent nothing kept no promise, and one lost request breaks it."""
    assert not promises.known_keys_never_fail(observation([])).is_kept
    assert promises.known_keys_never_fail(observation(steady())).is_kept
    lost = promises.known_keys_never_fail(observation([*steady(), sample(100.0, answer="connection lost")]))
    assert not lost.is_kept
    assert "connection lost" in lost.found


def test_quick_means_quick() -> None:
    """Unknown keys: 503 and nothing else once the outage is noticed, most of them at once, the slowest in time."""
    refused = steady(UNKNOWN, "503")
    assert promises.unknown_keys_get_503_quickly(observation(refused)).is_kept
    assert not promises.unknown_keys_get_503_quickly(observation([*refused, sample(105.0, UNKNOWN, "403")])).is_kept
    slow = [one._replace(seconds=0.9) for one in refused]
    assert not promises.unknown_keys_get_503_quickly(observation(slow)).is_kept
    assert not promises.unknown_keys_get_503_quickly(observation([])).is_kept


def test_added_latency_and_signals() -> None:
    """The median during the outage against that before, and the header on the answers of the outage."""
    local = [one._replace(mode="local") if 101 < one.due < 110 else one for one in steady()]
    assert promises.adds_less_than(1)(observation(local)).is_kept
    assert promises.local_is_signalled(observation(local)).is_kept
    late = [one._replace(seconds=0.004) if 101 < one.due < 110 else one for one in steady()]
    assert not promises.adds_less_than(1)(observation(late)).is_kept
    assert not promises.local_is_signalled(observation(late)).is_kept


def test_the_report_names_what_was_broken() -> None:
    """A row has a cell under each heading, and a broken promise is told with the figure that breaks it."""
    seen = Observation(steady(), MOMENTS, 3, Counter({"a line": 2}))
    kept, broken = promises.Check("this holds", True, "1"), promises.Check("that holds", False, "7 lost")
    rows = [Row("fine", "nothing", seen, (kept,)), Row("bad", "something", seen, (kept, broken))]
    assert {len(row.cells()) for row in rows} == {len(HEADINGS)}
    assert [row.cells()[-1] for row in rows] == ["kept", "broken: that holds"]
    assert complaints(rows) == ["bad: that holds: 7 lost"]
    assert len(markdown(rows).splitlines()) == 4
    assert rows[1].as_json()["promises"][1] == {"promise": "that holds", "is_kept": False, "found": "7 lost"}
