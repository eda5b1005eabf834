from __future__ import annotations

import xml.etree.ElementTree as ElementTree  # of our own text

import orjson
import pytest

from tools.bench_report import HEADINGS, Case, Report
from tools.plan import BACKEND, GATEWAY, Outcome, percentile


def outcome(per_second: float, p50_ms: float = 1.0, p99_ms: float = 5.0, **errors: int) -> Outcome:
    return Outcome(int(per_second), per_second, p50_ms, 2.0, p99_ms, errors)


def report() -> Report:
    """Three rounds at 32 connections: the backend, the gateway, and one peer that is twice as quick."""
    made, case = Report(), Case(32)
    for share in (0.9, 1.0, 1.2):
        direct = outcome(50_000, p50_ms=0.2, p99_ms=1.0)
        made.add(BACKEND, case, direct)
        made.add(GATEWAY, case, outcome(10_000 * share), direct)
        made.add("nginx", case, outcome(20_000), direct)
    return made


def test_rows_show_median_spread_added_latency_and_ratio() -> None:
    """A row has the median of its rounds, their extremes, what it adds to the backend's latency, and the ratio."""
    rows = {row[0]: dict(zip(HEADINGS, row, strict=True)) for row in report().table()}
    gateway = rows[GATEWAY]
    assert (gateway["requests/s"], gateway["least-most"], gateway["load"]) == ("10,000", "9,000-12,000", "32")
    assert (gateway["added p50"], gateway["added p99"]) == ("0.800", "4.000")
    assert (gateway["gateway/this"], rows["nginx"]["gateway/this"], rows[BACKEND]["gateway/this"]) == (
        "",
        "0.50",
        "0.20",
    )
    assert rows[BACKEND]["added p50"] == ""


def test_json_has_null_for_what_is_not_known() -> None:
    """The report for a program is valid JSON: a figure that does not exist is null."""
    rows = orjson.loads(orjson.dumps(report().as_json()))["rows"]
    backend = next(row for row in rows if row["name"] == BACKEND)
    assert (backend["added_p50_ms"], backend["per_second"], backend["rounds"]) == (None, 50_000, 3)


def test_no_ratio_between_different_rates() -> None:
    """Shares of different maxima are no race: only the maxima are compared."""
    made = Report()
    for name, most in ((GATEWAY, 1_000), ("nginx", 4_000)):
        made.add(name, Case(8, is_maximum=True), outcome(most))
        made.add(name, Case(8, rate=most / 2, share=50), outcome(most / 2))
    cells = {(row[0], row[1]): row[HEADINGS.index("gateway/this")] for row in made.table()}
    assert cells[("nginx", "maximum")] == "0.25"
    assert cells[("nginx", "50 %")] == ""


def test_failures_are_counted_by_kind() -> None:
    """Failed requests are one line with their number and kinds; without any there is none."""
    assert report().failures() is None
    made = Report()
    made.add(GATEWAY, Case(1), outcome(90, **{"429": 9, "connection lost": 1}))
    assert made.failures() == "10 of 100 requests failed: 429 × 9, connection lost × 1"
    assert made.table()[0][-1] == "429 × 9, connection lost × 1"


def test_nothing_answered() -> None:
    """A row without a single answer is shown as such, and breaks neither table nor chart nor JSON."""
    made = Report()
    made.add(GATEWAY, Case(1), Outcome.of([], 1.0, {"no connection": 3}))
    assert made.table()[0][2:7] == ["0", "0-0", "", "", ""]
    assert orjson.loads(orjson.dumps(made.as_json()))["rows"][0]["p50_ms"] is None
    ElementTree.fromstring(made.chart())  # noqa: S314 - our own text


def test_chart_is_an_svg_with_a_line_each() -> None:
    """The chart is well-formed, with two panels and one line for each thing measured, its name beside it."""
    root = ElementTree.fromstring(report().chart())  # noqa: S314 - our own text
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall(".//{*}polyline")) == 2 * 3
    assert {"nginx", GATEWAY, "connections", "32"} <= {element.text for element in root.iter()}


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.5, 50.0), (0.9, 90.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)]
)
def test_percentile(share: float, expected: float) -> None:
    """A percentile is a value that occurred: the least that this share does not exceed."""
    assert percentile([float(value) for value in range(1, 101)], share) == expected
