"""What a load generator is asked to do, and what came of it: the values that its process and its caller exchange."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Self

import orjson

GATEWAY: Final = "gateway"
BACKEND: Final = "backend"
"""The names of the two endpoints that ratios and differences are made of."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Something that can be measured: it answers at `url` when it is given `key`. `name` is for tables."""

    name: str
    url: str
    key: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """One run against `url`, GET requests on `connections` kept-alive connections.

    Closed loop without `rate`: each connection sends again as soon as it was answered. Open loop with it: `rate`
    requests a second are due at even distances whether earlier ones were answered or not, and a latency counts from
    when a request was due, so a server that stalls cannot hide the requests that had to wait for it.

    What is due in the first `warm_seconds` is not counted, `seconds` are. With `population` the requests carry the
    numbered keys of tools/population.py instead of `key`, at "random" or each "once" (the run ends with the last one).
    `samples` names a file for every counted request: all starts (unix seconds), then all latencies (seconds), doubles.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    connections: int = 1
    seconds: float = 1.0
    warm_seconds: float = 0.0
    rate: float | None = None
    population: int = 0
    order: Literal["random", "once"] = "random"
    samples: str | None = None

    def as_json(self) -> bytes:
        return orjson.dumps(asdict(self))

    @classmethod
    def parse(cls, line: bytes) -> Self:
        return cls(**orjson.loads(line))


@dataclass(frozen=True, slots=True)
class Outcome:
    """The requests that were answered 2xx: their number, rate and latencies; and the others by kind (`errors`)."""

    answers: int
    per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    errors: dict[str, int]

    @classmethod
    def of(cls, latencies_seconds: Sequence[float], seconds: float, errors: dict[str, int]) -> Self:
        ordered = sorted(latencies_seconds)
        p50_ms, p90_ms, p99_ms = (percentile(ordered, share) * 1000 for share in (0.5, 0.9, 0.99))
        return cls(len(ordered), len(ordered) / seconds, p50_ms, p90_ms, p99_ms, errors)

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """JSON has no nan: what is not known comes as null."""
        fields: dict[str, Any] = orjson.loads(line)
        known: dict[str, Any] = {name: math.nan if value is None else value for name, value in fields.items()}
        return cls(**known)

    def as_json(self) -> bytes:
        return orjson.dumps(asdict(self))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The least value that `share` (0 to 1) of the ascending values do not exceed; nan when there are none."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else math.nan
