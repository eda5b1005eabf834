"""What a burst of requests was told by the gateway, and whether the requests admitted agree with it. No I/O."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Told:
    """One answer to a known organization: what it announced. Admitted is any status but 429, a backend's error too."""

    status: int
    limit_minute: int
    limit_day: int
    remaining_minute: int
    remaining_day: int
    burst_remaining: int
    reset_minute: str
    reset_day: str
    mode: str

    @property
    def is_admitted(self) -> bool:
        return self.status != 429

    @property
    def room(self) -> int:
        """How many more requests both windows admit, as announced."""
        return min(self.remaining_minute + self.burst_remaining, self.remaining_day)


def told(status: int, headers: Mapping[str, str]) -> Told | None:
    """Reads an answer's fields; None when they are not all there: it knew no organization, or is no gateway's."""
    try:
        return Told(
            status,
            limit_minute=int(headers["X-RateLimit-Limit-Minute"]),
            limit_day=int(headers["X-RateLimit-Limit-Day"]),
            remaining_minute=int(headers["X-RateLimit-Remaining-Minute"]),
            remaining_day=int(headers["X-RateLimit-Remaining-Day"]),
            burst_remaining=int(headers["X-RateLimit-Burst-Remaining"]),
            reset_minute=headers["X-RateLimit-Reset-Minute"],
            reset_day=headers["X-RateLimit-Reset-Day"],
            mode=headers.get("X-RateLimit-Mode", "redis"),
        )
    except (KeyError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Report:
    """A burst's result. `other` counts what was neither admitted nor refused by a limit, by status or failure."""

    answers: Sequence[Told]
    other: Counter[str]

    @property
    def admitted(self) -> int:
        return sum(answer.is_admitted for answer in self.answers)

    @property
    def refused(self) -> int:
        return len(self.answers) - self.admitted

    @property
    def last(self) -> Told | None:
        """The answer of the latest minute that announced the least room: where the burst ended."""
        latest = [answer for answer in self.answers if answer.reset_minute == self.minutes[-1]]
        return min(latest, key=lambda answer: answer.room, default=None)

    @property
    def modes(self) -> list[str]:
        return sorted({answer.mode for answer in self.answers})

    @property
    def minutes(self) -> list[str]:
        """The UTC minutes that the burst touched, by their ends, in order (RFC 3339 in UTC sorts as text)."""
        return sorted({answer.reset_minute for answer in self.answers})

    def disagreements(self) -> list[str]:
        """One line for each thing that was announced and did not happen; empty when all agrees."""
        found = [] if self.answers else ["no answer carried the limits of an organization"]
        if any(not answer.is_admitted and answer.room for answer in self.answers):
            found.append("a request was refused by an answer that announced room")
        if self.modes == ["redis"]:  # else each worker speaks of its own share, and the shares cannot be told apart
            windows: dict[str, list[Told]] = defaultdict(list)
            for answer in self.answers:
                windows[answer.reset_minute].append(answer)
            found += [line for end in sorted(windows) for line in _in_one_minute(end, windows[end])]
        return found

    def as_json(self) -> dict[str, Any]:
        """The report for a program: counts, what was announced last, and the judgement."""
        last = self.last
        return {
            "admitted": self.admitted,
            "refused": self.refused,
            "other": dict(self.other),
            "limit_minute": last and last.limit_minute,
            "limit_day": last and last.limit_day,
            "remaining_minute": last and last.remaining_minute,
            "burst_remaining": last and last.burst_remaining,
            "remaining_day": last and last.remaining_day,
            "reset_minute": last and last.reset_minute,
            "reset_day": last and last.reset_day,
            "modes": self.modes,
            "minutes": self.minutes,
            "disagreements": self.disagreements(),
            "agrees": not self.disagreements(),
        }


def _in_one_minute(end: str, answers: Iterable[Told]) -> Iterable[str]:
    """The first admitted request announced the room left behind it: with itself, that is what the minute admits."""
    rooms = [answer.room for answer in answers if answer.is_admitted]
    is_drained = any(not answer.is_admitted for answer in answers)
    announced = max(rooms, default=-1) + 1
    if len(set(rooms)) < len(rooms):
        yield f"in the minute until {end} the same remainder was announced twice"
    if len(rooms) > announced:
        yield f"in the minute until {end}, {announced} requests were announced and {len(rooms)} admitted"
    if is_drained and len(rooms) < announced:
        yield (
            f"in the minute until {end}, {announced} requests were announced and {len(rooms)} admitted "
            "(is another client of the same organization at work?)"
        )
