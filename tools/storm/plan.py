"""What the load process is asked to send, and what it tells of each request. Times are monotonic seconds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

import orjson


@dataclass(frozen=True, slots=True)
class Stream:
    """GET requests at `rate` a second with `key`; without one, each with another key that nobody knows.

    `is_kept`: on a few connections that are kept alive; else on a new one each, so that every worker gets its part.
    """

    name: str
    rate: float
    key: str | None = field(default=None, repr=False)
    is_kept: bool = False


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """All streams at once, open loop, over the gateways at `ports`, for at most `seconds`."""

    ports: tuple[int, ...]
    path: str
    seconds: float
    streams: tuple[Stream, ...]

    def as_json(self) -> bytes:
        return orjson.dumps(asdict(self))

    @classmethod
    def parse(cls, line: bytes) -> Self:
        fields: dict[str, Any] = orjson.loads(line)
        streams = tuple(Stream(**each) for each in fields["streams"])
        return cls(tuple(fields["ports"]), fields["path"], fields["seconds"], streams)


class Sample(NamedTuple):
    """One request: when it was due, how long until its answer, and what that was.

    `answer` is the status, or in words why there is none. `mode` is X-RateLimit-Mode, `reset` X-RateLimit-Reset-Minute
    (it names the minute that was charged). `retries`: how often a router would have had to try another connection.
    """

    stream: str
    due: float
    seconds: float
    answer: str
    mode: str
    reset: str
    retries: int
