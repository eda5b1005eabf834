"""Fires a bounded burst at a running gateway and compares what was admitted with what was announced."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

import click
import httpx
from rich.console import Console
from rich.progress import Progress, TaskID

from tools.arguments import http_url, sendable
from tools.burst_report import Report, Told, told
from tools.command import show_json, show_table

REQUESTS_MAX: Final = 20_000
CONCURRENCY_MAX: Final = 256
BURST_SECONDS_MAX: Final = 120.0
"""No request starts later than this after the first one."""
REQUEST_SECONDS_MAX: Final = 35.0
"""Longer than a gateway waits for a backend unless told otherwise (30 s): its own answer is worth more than ours."""
BEYOND: Final = 25
"""Without --requests: so many more than the gateway announces room for, to see it refuse."""


class NoLimits(Exception):
    """The first answer was one that no known organization gets. The text says what it was."""


class Burst:
    """One burst at `url`, and what came of it so far."""

    def __init__(self, url: str, key: str, concurrency: int, progress: Progress) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"}
        self._concurrency = concurrency
        self._progress = progress
        self._answers: list[Told] = []
        self._other: Counter[str] = Counter()

    async def fire(self, requests: int | None) -> Report:
        """Sends `requests`, or as many as it takes to be refused.

        Raises NoLimits or httpx.HTTPError when the first request shows that there is nothing to be measured.
        """
        limits = httpx.Limits(max_connections=self._concurrency)
        # trust_env: a proxy of the environment would answer for the gateway.
        async with httpx.AsyncClient(limits=limits, timeout=REQUEST_SECONDS_MAX, trust_env=False) as client:
            first = await client.get(self._url, headers=self._headers)
            announced = told(first.status_code, first.headers)
            if announced is None:
                raise NoLimits(f"the gateway answered {first.status_code} without limits{_message(first)}")
            self._answers.append(announced)
            total = requests or min(REQUESTS_MAX, 1 + announced.room + BEYOND)
            task = self._progress.add_task("requests", total=total, completed=1)
            left = iter(range(total - 1))
            until = time.monotonic() + BURST_SECONDS_MAX
            await asyncio.gather(*(self._send(client, left, until, task) for _ in range(self._concurrency)))
        return Report(self._answers, self._other)

    async def _send(self, client: httpx.AsyncClient, left: Iterator[int], until: float, task: TaskID) -> None:
        for _ in left:
            if time.monotonic() > until:
                return
            try:
                answer = await client.get(self._url, headers=self._headers)
            except httpx.HTTPError as failure:
                self._other[type(failure).__name__] += 1
            else:
                self._note(answer)
            self._progress.advance(task)

    def _note(self, answer: httpx.Response) -> None:
        announced = told(answer.status_code, answer.headers)
        if announced is None:
            self._other[str(answer.status_code)] += 1
        else:
            self._answers.append(announced)


def _message(answer: httpx.Response) -> str:
    """What a gateway's error says, if this is one."""
    try:
        return f": {answer.json()['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return ""


def _show(report: Report) -> None:
    rows = [("admitted", str(report.admitted)), ("refused (429)", str(report.refused))]
    rows += [(f"other: {kind}", str(count)) for kind, count in report.other.items()]
    if (last := report.last) is not None:
        rows += [
            ("limit per minute / per day", f"{last.limit_minute} / {last.limit_day}"),
            ("remaining in the minute / of the burst", f"{last.remaining_minute} / {last.burst_remaining}"),
            ("remaining in the day", str(last.remaining_day)),
            ("minute / day ends at", f"{last.reset_minute} / {last.reset_day}"),
            ("decided by", ", ".join(report.modes)),
        ]
    show_table(("", "burst"), rows)
    if len(report.minutes) > 1:
        click.echo(f"The burst went over {len(report.minutes)} UTC minutes; each is judged by what it announced.")
    if report.modes != ["redis"]:
        click.echo("Without Redis each worker announces its own share: only the refusals are judged.")


@click.command()
@click.option("--url", required=True, callback=http_url, help="Where the requests go: the gateway's URL and a path.")
@click.option("--key", required=True, callback=sendable, help="An API key of the organization to try.")
@click.option(
    "--requests", type=click.IntRange(1, REQUESTS_MAX), help="How many; as many as it takes to be refused by default."
)
@click.option("--concurrency", type=click.IntRange(1, CONCURRENCY_MAX), default=16, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the table.")
def main(url: str, key: str, requests: int | None, concurrency: int, as_json: bool) -> None:
    """Fires a bounded burst at a running gateway and compares what was admitted with what was announced.

    Exit status: 0 it agrees, 1 it does not or the gateway cannot be tried, 2 bad usage. The requests count.
    """
    console = Console(stderr=True)
    try:
        with Progress(console=console, transient=True, disable=as_json or not console.is_terminal) as progress:
            report = asyncio.run(Burst(url, key, concurrency, progress).fire(requests))
    except NoLimits as failure:
        raise click.ClickException(str(failure)) from failure
    except httpx.HTTPError as failure:
        raise click.ClickException(f"{url} cannot be reached: {failure or type(failure).__name__}") from failure
    if as_json:
        show_json(report.as_json())
    else:
        _show(report)
    if disagreements := report.disagreements():
        raise click.ClickException("does not agree: " + "; ".join(disagreements))
    if not as_json:
        click.echo("What was admitted agrees with what was announced.")


if __name__ == "__main__":
    main(prog_name="python -m tools.ratelimit_check")
