"""What a scenario's samples say: answers, latencies by phase, and how far and how late promises were kept. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal

from tools.plan import percentile
from tools.storm.plan import Sample

KNOWN, UNKNOWN, LIMITED, DOOMED = "known", "unknown", "limited", "doomed"
"""The streams: a key that all workers hold; keys that nobody has; one driven over its limit; one that is revoked."""
BREAKER_SECONDS: Final = 1.5
"""From the break until every worker has noticed: a few requests that wait 50 ms for Redis, or a heartbeat."""
CLEAN_SECONDS: Final = 1.0
Phase = Literal["before", "during", "after"]


@dataclass(frozen=True, slots=True)
class Moments:
    """Monotonic seconds. `healing` took until `healed`. `revoked`: just before the call that revokes, if any."""

    broke: float
    healing: float
    healed: float
    ended: float
    revoked: float | None = None


@dataclass(frozen=True)
class Observation:
    """One scenario. `per_minute` is the limited stream's limit, `told` what the gateways said, with how often.

    `noted` is what the scenario measured itself, in words: a promise of its own that was not kept.
    """

    samples: Sequence[Sample]
    moments: Moments
    per_minute: int
    told: Counter[str] = field(default_factory=Counter)
    noted: tuple[str, ...] = ()

    def of(self, stream: str, phase: Phase | None = None) -> list[Sample]:
        """The stream's samples; a phase counts what was due in it, `during` once the outage was noticed."""
        mine = [sample for sample in self.samples if sample.stream == stream]
        return mine if phase is None else [sample for sample in mine if self._phase(sample.due) == phase]

    def _phase(self, due: float) -> Phase | None:
        moments = self.moments
        if due < moments.broke:
            return "before"
        if due >= moments.healing:
            return "after" if due >= moments.healed + (self.recovered_seconds or 0.0) else None
        return "during" if due >= moments.broke + min(BREAKER_SECONDS, (moments.healing - moments.broke) / 2) else None

    def answers(self, stream: str, phase: Phase | None = None) -> Counter[str]:
        return Counter(sample.answer for sample in self.of(stream, phase))

    def latency_ms(self, stream: str, phase: Phase, share: float) -> float:
        """Of all its requests, whatever was answered; nan when there were none."""
        return percentile(sorted(sample.seconds for sample in self.of(stream, phase)), share) * 1000

    @property
    def lost(self) -> int:
        """Requests with the known key that were not answered 200."""
        return sum(count for answer, count in self.answers(KNOWN).items() if answer != "200")

    @property
    def retries(self) -> int:
        return sum(sample.retries for sample in self.of(KNOWN))

    @property
    def local_share(self) -> float:
        """The part of the known key's answers that said `X-RateLimit-Mode: local` once the outage was noticed."""
        samples = self.of(KNOWN, "during")
        return sum(sample.mode == "local" for sample in samples) / len(samples) if samples else math.nan

    @property
    def overshoot(self) -> int:
        """Requests granted beyond the limit, in all minutes; each answer names the minute that it was charged to."""
        granted = Counter(sample.reset for sample in self.of(LIMITED) if sample.answer == "200")
        return sum(max(0, count - self.per_minute) for count in granted.values())

    @property
    def revocation_seconds(self) -> float:
        """From the revocation to the last request that was sent and still let in; nan when nothing was revoked."""
        if self.moments.revoked is None:
            return math.nan
        late = [sample.due - self.moments.revoked for sample in self.of(DOOMED) if sample.answer == "200"]
        return max(0.0, *late) if late else 0.0

    @cached_property
    def recovered_seconds(self) -> float | None:
        """From the healing until all was as before for CLEAN_SECONDS: Redis decides, unknown keys are told so.

        None: it never was. A single late answer of Redis afterwards, on a busy machine, is no outage.
        """
        marks = [sample.due for sample in self.of(KNOWN) if sample.mode == "local"]
        marks += [sample.due for sample in self.of(UNKNOWN) if sample.answer not in ("403", "200")]
        last = self.moments.healed
        for mark in sorted(marks):
            if mark > last + CLEAN_SECONDS:
                break
            last = max(last, mark)
        return last - self.moments.healed if last < self.moments.ended - CLEAN_SECONDS else None
