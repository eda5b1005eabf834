"""What must hold while something fails, each a function from an Observation to a Check. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from tools.plan import percentile
from tools.storm.observation import KNOWN, UNKNOWN, Observation

REFUSED_SECONDS_MAX: Final = 1.5
"""The slowest 503: 0.9 s for the one request a second that tries the database, and room for a busy machine."""
REFUSED_P50_MS_MAX: Final = 100.0
LOG_LINES_MAX: Final = 60
"""Four workers, each with its few lines for the beginning and the end of each dependency's outage."""


class Check(NamedTuple):
    """A promise in words, whether it was kept, and the figure that says so."""

    promise: str
    is_kept: bool
    found: str


Promise = Callable[[Observation], Check]


def known_keys_never_fail(seen: Observation) -> Check:
    wrong = {answer: count for answer, count in seen.answers(KNOWN).items() if answer != "200"}
    return Check("known keys never see an error", bool(seen.of(KNOWN)) and not wrong, f"{wrong or 'all 200'}")


def at_most_lost(count: int) -> Promise:
    """For a process that dies with requests in its hands."""

    def promise(seen: Observation) -> Check:
        return Check(f"at most {count} requests are lost", seen.lost <= count, f"{seen.lost} lost")

    return promise


def unknown_keys_get_503_quickly(seen: Observation) -> Check:
    refused = [one for one in seen.of(UNKNOWN, "during") if one.due + one.seconds < seen.moments.healing]
    answers = Counter(one.answer for one in refused)
    slowest = max((one.seconds for one in refused), default=math.inf)
    p50_ms = percentile(sorted(one.seconds for one in refused), 0.5) * 1000
    is_kept = set(answers) == {"503"} and slowest <= REFUSED_SECONDS_MAX and p50_ms <= REFUSED_P50_MS_MAX
    found = f"{dict(answers)}, p50 {p50_ms:.1f} ms, slowest {slowest * 1000:.0f} ms"
    return Check("unknown keys get 503 quickly", is_kept, found)


def unknown_keys_get_403(seen: Observation) -> Check:
    answers = seen.answers(UNKNOWN)
    return Check("unknown keys are told so", set(answers) == {"403"}, f"{dict(answers)}")


def adds_less_than(ms: float) -> Promise:
    """At p50, once the outage is noticed."""

    def promise(seen: Observation) -> Check:
        added_ms = seen.latency_ms(KNOWN, "during", 0.5) - seen.latency_ms(KNOWN, "before", 0.5)
        return Check(f"less than {ms:g} ms added at p50", added_ms < ms, f"{added_ms:+.2f} ms")

    return promise


def local_is_signalled(seen: Observation) -> Check:
    return Check("local limits are signalled", seen.local_share >= 0.99, f"{seen.local_share:.1%} of the answers")


def limits_hold(workers: int) -> Promise:
    """One worker's share: what the others were granted since a worker last heard of Redis, it cannot know."""

    def promise(seen: Observation) -> Check:
        share = seen.per_minute // workers
        return Check(f"at most a share ({share}) over the limit", seen.overshoot <= share, f"{seen.overshoot}")

    return promise


def revoked_within(seconds: float) -> Promise:
    def promise(seen: Observation) -> Check:
        delay = seen.revocation_seconds
        return Check(f"a revocation holds within {seconds:g} s", delay <= seconds, f"{delay:.2f} s")

    return promise


def recovers(seen: Observation) -> Check:
    found = seen.recovered_seconds
    return Check("it recovers by itself", found is not None, "not in time" if found is None else f"{found:.1f} s")


def log_is_bounded(seen: Observation) -> Check:
    lines = seen.told.total()
    return Check(f"at most {LOG_LINES_MAX} lines about it", lines <= LOG_LINES_MAX, f"{lines} lines")


def own_notes(seen: Observation) -> Check:
    """What the scenario itself looked at."""
    return Check("processes start and end as promised", not seen.noted, "; ".join(seen.noted) or "as promised")
