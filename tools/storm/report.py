"""What the programme found, for people, programs and documents. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tools.storm.observation import KNOWN, LIMITED, UNKNOWN, Observation, Phase
from tools.storm.promises import Check

HEADINGS: Final = (
    *("what was done", "requests", "answers to known keys", "p50 / p99 ms before", "during", "after"),
    *("to unknown keys", "over the limit", "revoked after", "as before after", "log lines", "promises"),
)
PHASES: Final[tuple[Phase, ...]] = ("before", "during", "after")


@dataclass(frozen=True, slots=True)
class Row:
    """One scenario and its checks."""

    name: str
    text: str
    seen: Observation
    checks: tuple[Check, ...]

    @property
    def broken(self) -> list[Check]:
        return [check for check in self.checks if not check.is_kept]

    def cells(self) -> list[str]:
        """Under HEADINGS."""
        seen, recovered = self.seen, self.seen.recovered_seconds
        return [
            self.text,
            f"{len(seen.samples):,}",
            _counts(seen.answers(KNOWN)),
            *(_latencies(seen, phase) for phase in PHASES),
            _counts(seen.answers(UNKNOWN, "during")),
            f"{seen.overshoot}",
            _seconds(seen.revocation_seconds),
            "not yet" if recovered is None else _seconds(recovered),
            f"{seen.told.total()}",
            "kept" if not self.broken else "broken: " + ", ".join(check.promise for check in self.broken),
        ]

    def as_json(self) -> dict[str, Any]:
        """The same for a program, with what the gateways said; null for what is not known."""
        seen = self.seen
        return {
            "name": self.name,
            "text": self.text,
            "requests": len(seen.samples),
            "answers": {stream: dict(seen.answers(stream)) for stream in (KNOWN, UNKNOWN, LIMITED)},
            "latency_ms": {phase: _figures(seen, phase) for phase in PHASES},
            "limit_overshoot": seen.overshoot,
            "local_share": _known(seen.local_share),
            "revocation_seconds": _known(seen.revocation_seconds),
            "recovered_seconds": seen.recovered_seconds,
            "retries": seen.retries,
            "log": dict(seen.told),
            "promises": [check._asdict() for check in self.checks],
        }


def markdown(rows: list[Row]) -> str:
    """The table for docs/failure-modes.md."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def complaints(rows: list[Row]) -> list[str]:
    """A line for each promise that was broken."""
    return [f"{row.name}: {check.promise}: {check.found}" for row in rows for check in row.broken]


def _counts(answers: Mapping[str, int]) -> str:
    ordered = Counter(answers).most_common()
    return ", ".join(f"{answer} × {count:,}" for answer, count in ordered) or "–"


def _latencies(seen: Observation, phase: Phase) -> str:
    p50, p99 = (seen.latency_ms(KNOWN, phase, share) for share in (0.5, 0.99))
    return "–" if math.isnan(p50) else f"{p50:.1f} / {p99:.1f}"


def _figures(seen: Observation, phase: Phase) -> dict[str, float | None]:
    return {f"p{share * 100:.0f}": _known(seen.latency_ms(KNOWN, phase, share)) for share in (0.5, 0.99)}


def _seconds(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f} s"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
