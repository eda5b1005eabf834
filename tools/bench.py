"""Throughput and latency of a running gateway, or of one that it starts, beside the backend and other gateways."""

from __future__ import annotations

import contextlib
import functools
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import httpx
from rich.console import Console
from rich.progress import Progress

from tools import arguments
from tools.bench_report import HEADINGS, Case, Report
from tools.command import show_json, show_table
from tools.generator import fire
from tools.installation import Installation, installation
from tools.peers import PEERS
from tools.placement import Placement
from tools.plan import BACKEND, GATEWAY, Endpoint, Outcome, Plan

WARM_SECONDS_MAX: Final = 1.0
NAMES: Final = (GATEWAY, *(peer.name for peer in PEERS))
Start = Callable[[], AbstractContextManager[Endpoint]]


@dataclass(frozen=True, slots=True)
class Measures:
    """What is measured of each endpoint: closed loop at each concurrency; with `rate` open loop; with `loads` (percent)
    the maximum at the highest concurrency and then open loop at these shares of it."""

    seconds: float
    concurrency: tuple[int, ...]
    rate: float | None
    loads: tuple[int, ...]
    rounds: int

    @property
    def warm_seconds(self) -> float:
        return min(WARM_SECONDS_MAX, self.seconds / 4)

    @property
    def cases(self) -> list[Case]:
        return [Case(connections, self.rate) for connections in self.concurrency]

    def runs(self, endpoints: int, *, has_direct: bool) -> int:
        """How many runs it takes, for the progress bar."""
        if self.loads:
            return self.rounds * endpoints * (1 + len(self.loads) * (1 + has_direct))
        return self.rounds * len(self.concurrency) * (endpoints + has_direct)


class Bench:
    """Carries out the measures, one endpoint after the other, and collects the report."""

    def __init__(self, measures: Measures, direct: Endpoint | None, progress: Progress) -> None:
        self.report = Report()
        self._measures = measures
        self._direct = direct
        self._progress = progress

    def run(self, starts: Sequence[Start]) -> Report:
        """Rounds go over all endpoints in turn, so that a machine whose speed changes does not favour one."""
        runs = self._measures.runs(len(starts), has_direct=self._direct is not None)
        seconds = self._measures.seconds + self._measures.warm_seconds
        self._task = self._progress.add_task("measuring", total=runs * seconds)
        for _ in range(self._measures.rounds):
            if self._measures.loads:
                self._each(starts, self._loads)
            else:
                self._each(starts, functools.partial(self._cases, self._directly()))
        return self.report

    def _each(self, starts: Sequence[Start], measure: Callable[[Endpoint], None]) -> None:
        for start in starts:
            with start() as endpoint:
                measure(endpoint)

    def _directly(self) -> dict[Case, Outcome]:
        if self._direct is None:
            return {}
        outcomes = {case: self._fire(self._direct, case) for case in self._measures.cases}
        for case, outcome in outcomes.items():
            self.report.add(self._direct.name, case, outcome)
        return outcomes

    def _cases(self, direct: dict[Case, Outcome], endpoint: Endpoint) -> None:
        for case in self._measures.cases:
            self.report.add(endpoint.name, case, self._fire(endpoint, case), direct.get(case))

    def _loads(self, endpoint: Endpoint) -> None:
        """The backend is measured at the very rate too, right before: what is added is what the endpoint costs."""
        connections = max(self._measures.concurrency)
        case = Case(connections, is_maximum=True)
        maximum = self._fire(endpoint, case)
        self.report.add(endpoint.name, case, maximum)
        if not maximum.answers:
            raise click.ClickException(f"{endpoint.name} answered no request: {maximum.errors or 'none came back'}")
        for share in self._measures.loads:
            case = Case(connections, maximum.per_second * share / 100, share)
            direct = self._fire(self._direct, case) if self._direct is not None else None
            self.report.add(endpoint.name, case, self._fire(endpoint, case), direct)

    def _fire(self, endpoint: Endpoint, case: Case) -> Outcome:
        self._progress.update(self._task, description=f"{endpoint.name}, {case.label}")
        plan = Plan(
            url=endpoint.url,
            key=endpoint.key,
            connections=case.connections,
            seconds=self._measures.seconds,
            warm_seconds=self._measures.warm_seconds,
            rate=case.rate,
        )
        return fire(plan, lambda seconds: self._progress.advance(self._task, seconds))


def look(endpoint: Endpoint) -> None:
    """One request, before thousands. Raises a ClickException when it is not answered 2xx."""
    headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    try:
        answer = httpx.get(endpoint.url, headers=headers, timeout=10, trust_env=False)
    except httpx.HTTPError as failure:
        raise click.ClickException(f"{endpoint.url} cannot be reached: {failure or type(failure).__name__}") from None
    if not answer.is_success:
        told = " ".join(answer.text[:200].split())
        raise click.ClickException(f"{endpoint.url} answered {answer.status_code}, expected 2xx: {told}")


@contextlib.contextmanager
def own(only: Sequence[str]) -> Iterator[tuple[Endpoint, list[Start], str]]:
    """An installation of our own: the backend, what to start in front of it, and where all that runs."""
    placement = Placement.apart()
    with installation(placement) as found:
        direct = Endpoint(BACKEND, f"{found.origin_url}/api/users", None)
        yield direct, list(_starts(found, only)), placement.text


def _starts(found: Installation, only: Sequence[str]) -> Iterator[Start]:
    if GATEWAY in only:
        yield functools.partial(found.gateway, found.organization_key())
    for peer in PEERS:
        if peer.name in only and peer.is_installed():
            yield functools.partial(found.peer, peer)


@contextlib.contextmanager
def theirs(url: str, key: str, direct: str | None) -> Iterator[tuple[Endpoint | None, list[Start], str]]:
    """The user's installation, once a first request has shown that it answers."""
    endpoint = Endpoint(GATEWAY, url, key)
    backend = Endpoint(BACKEND, direct, None) if direct else None
    look(endpoint)
    if backend is not None:
        look(backend)
    yield backend, [lambda: nullcontext(endpoint)], "the generator runs where the system puts it"


def _chosen(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - set(NAMES):
        raise click.BadParameter(f"unknown: {', '.join(sorted(unknown))}; expected some of {','.join(NAMES)}")
    return names


def _check(url: str | None, key: str | None, direct: str | None, rate: float | None, loads: Sequence[int]) -> None:
    if (url is None) != (key is None):
        raise click.UsageError("--url and --key belong together; without both an installation of its own is measured")
    if direct is not None and url is None:
        raise click.UsageError("--direct needs --url: an installation of its own has a backend of its own")
    if rate is not None and loads:
        raise click.UsageError("--rate and --loads exclude each other: both say how many requests a second are sent")


@click.command()
@click.option("--url", callback=arguments.http_url, help="A gateway's URL and a path. Without: an own installation.")
@click.option("--key", callback=arguments.sendable, help="An API key whose organization has room for the load.")
@click.option("--direct", callback=arguments.http_url, help="The same path at the backend: shows what is added.")
@click.option("--seconds", type=click.FloatRange(0.2, 60), default=5.0, show_default=True, help="For each run.")
@click.option(
    "--concurrency", callback=arguments.numbers(1, 1024), default="1,8,32,128", show_default=True, help="Connections."
)
@click.option("--rate", type=click.FloatRange(1, 100_000), help="Requests a second: open loop.")
@click.option("--loads", callback=arguments.numbers(1, 100), help="Open loop at these percentages of the maximum.")
@click.option("--rounds", type=click.IntRange(1, 20), default=1, show_default=True, help="The median is shown.")
@click.option("--only", callback=_chosen, default=",".join(NAMES), help="Which to start: some of " + ",".join(NAMES))
@click.option("--chart", callback=arguments.svg_file, help="An SVG file to write.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the table.")
def main(
    url: str | None,
    key: str | None,
    direct: str | None,
    seconds: float,
    concurrency: tuple[int, ...],
    rate: float | None,
    loads: tuple[int, ...],
    rounds: int,
    only: tuple[str, ...],
    chart: Path | None,
    as_json: bool,
) -> None:
    """Measures throughput and latency, and what a gateway adds to its backend's.

    With --url and --key that gateway; the requests count against its limits. Without, an installation of its own:
    embedded PostgreSQL and Redis, a cheap backend, one gateway worker, and nginx with Lua and Redis, Caddy and nginx
    beside it where they are installed.

    Exit status: 0 measured, 1 not to be measured or requests failed, 2 bad usage.
    """
    _check(url, key, direct, rate, loads)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    measures = Measures(seconds, concurrency, rate, loads, rounds)
    console = Console(stderr=True)
    subject = theirs(url, key, direct) if url is not None and key is not None else own(only)
    with subject as (backend, starts, where), Progress(console=console, transient=True) as progress:
        progress.disable = as_json or not console.is_terminal
        report = Bench(measures, backend, progress).run(starts)
    _show(report, where, chart, as_json=as_json)


def _show(report: Report, where: str, chart: Path | None, *, as_json: bool) -> None:
    if as_json:
        show_json(report.as_json())
    else:
        show_table(HEADINGS, report.table())
        click.echo(f"added: beyond the backend itself under the same load, in ms. {where}.")
    if chart is not None:
        chart.write_text(report.chart())
    if failures := report.failures():
        raise click.ClickException(failures)


if __name__ == "__main__":
    main(prog_name="tools/bench")
