"""What a bench found, for people and programs: rows, ratios, a chart. No I/O."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tools.chart import Panel, draw
from tools.plan import GATEWAY, Outcome

HEADINGS: Final = (
    *("", "load", "requests/s", "least-most", "p50 ms", "p90 ms", "p99 ms"),
    *("added p50", "added p99", "gateway/this", "errors"),
)
Figure = Callable[[Outcome], float]


@dataclass(frozen=True, slots=True)
class Case:
    """A load. `share` is `rate` in percent of the measured one's own maximum; is_maximum: the run that found it."""

    connections: int
    rate: float | None = None
    share: int | None = None
    is_maximum: bool = False

    @property
    def label(self) -> str:
        if self.is_maximum:
            return "maximum"
        if self.share is not None:
            return f"{self.share} %"
        return f"{self.connections}" if self.rate is None else f"{self.connections} at {self.rate:g}/s"


@dataclass(slots=True)
class Row:
    """One thing under one load, an outcome a round; `direct` has the backend's own outcomes under the same load."""

    name: str
    case: Case
    outcomes: list[Outcome] = field(default_factory=list)
    direct: list[Outcome] = field(default_factory=list)

    @property
    def label(self) -> str:
        return self.case.label

    def median(self, figure: Figure) -> float:
        return statistics.median(map(figure, self.outcomes))

    def added(self, figure: Figure) -> float:
        """How much later than from the backend itself; nan when that is not known."""
        if not self.direct:
            return math.nan
        return self.median(figure) - statistics.median(map(figure, self.direct))

    @property
    def per_second(self) -> float:
        return self.median(lambda outcome: outcome.per_second)

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the most requests a second of all rounds."""
        rates = [outcome.per_second for outcome in self.outcomes]
        return min(rates), max(rates)

    @property
    def errors(self) -> Counter[str]:
        return sum((Counter(outcome.errors) for outcome in self.outcomes), Counter())


class Report:
    """The rows in the order in which they were first measured."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Row] = {}

    @property
    def rows(self) -> list[Row]:
        return list(self._rows.values())

    def add(self, name: str, case: Case, outcome: Outcome, direct: Outcome | None = None) -> None:
        row = self._rows.setdefault((name, case.label), Row(name, case))
        row.outcomes.append(outcome)
        if direct is not None:
            row.direct.append(direct)

    def ratio(self, row: Row) -> float:
        """The gateway's requests a second, divided by these; nan where it was not measured, or the rate was given."""
        gateway = self._rows.get((GATEWAY, row.label)) if row.case.rate is None else None
        return gateway.per_second / row.per_second if gateway is not None and row.per_second else math.nan

    def table(self) -> list[list[str]]:
        """Cells under HEADINGS."""
        return [_cells(row, self.ratio(row)) for row in self.rows]

    def as_json(self) -> dict[str, Any]:
        """The same for a program; null for what is not known."""
        return {"rows": [_fields(row, self.ratio(row)) for row in self.rows]}

    def chart(self) -> str:
        """An SVG document: requests a second and p99 over the loads, a line for each thing measured."""
        return draw(
            [
                self._panel("requests a second", lambda row: row.per_second),
                self._panel("p99, milliseconds", lambda row: row.median(_p99)),
            ]
        )

    def _panel(self, title: str, value: Callable[[Row], float]) -> Panel:
        places = list(dict.fromkeys(row.label for row in self.rows))
        names = dict.fromkeys(row.name for row in self.rows)
        lines = {name: [_known(self._rows.get((name, place)), value) for place in places] for name in names}
        below = "load" if any(row.case.share is not None for row in self.rows) else "connections"
        return Panel(title, below, places, lines)

    def failures(self) -> str | None:
        """One line when requests failed: the figures then do not mean what they seem to."""
        errors: Counter[str] = sum((row.errors for row in self.rows), Counter())
        if not errors:
            return None
        total = errors.total() + sum(outcome.answers for row in self.rows for outcome in row.outcomes)
        return f"{errors.total()} of {total} requests failed: {_counts(errors.most_common())}"


def _p50(outcome: Outcome) -> float:
    return outcome.p50_ms


def _p99(outcome: Outcome) -> float:
    return outcome.p99_ms


def _known(row: Row | None, value: Callable[[Row], float]) -> float | None:
    return None if row is None or math.isnan(value(row)) else value(row)


def _figure(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)


def _counts(errors: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{kind} × {count}" for kind, count in errors)


def _cells(row: Row, ratio: float) -> list[str]:
    least, most = row.spread
    latencies: Sequence[float] = (row.median(_p50), row.median(lambda outcome: outcome.p90_ms), row.median(_p99))
    return [
        row.name,
        row.label,
        f"{row.per_second:,.0f}",
        f"{least:,.0f}-{most:,.0f}",
        *(_figure(value, ".3f") for value in (*latencies, row.added(_p50), row.added(_p99))),
        "" if row.name == GATEWAY else _figure(ratio, ".2f"),
        _counts(row.errors.items()),
    ]


def _fields(row: Row, ratio: float) -> dict[str, Any]:
    return {
        "name": row.name,
        "load": row.label,
        "per_second": row.per_second,
        "per_second_least": row.spread[0],
        "per_second_most": row.spread[1],
        "p50_ms": row.median(_p50),
        "p90_ms": row.median(lambda outcome: outcome.p90_ms),
        "p99_ms": row.median(_p99),
        "added_p50_ms": row.added(_p50),
        "added_p99_ms": row.added(_p99),
        "gateway_ratio": ratio,
        "errors": dict(row.errors),
        "rounds": len(row.outcomes),
    }
