"""What very many keys and organizations cost: `python -m tools.growth --keys 1000000 --organizations 100000`."""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass

import click
from loguru import logger
from rich.console import Console
from rich.progress import Progress

from app.core.data.database import Database, StoreUnavailable
from tools import growth_ring, population
from tools.command import show_json, show_table
from tools.growth_gateway import GatewayFigures, Growth
from tools.growth_ring import RingFigures
from tools.installation import installation
from tools.placement import Placement


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that was measured. `workers`: requests a second by number of workers."""

    organizations: int
    ring: RingFigures
    gateway: GatewayFigures
    workers: dict[str, float]

    def rows(self) -> list[tuple[str, str]]:
        ring, gateway = self.ring, self.gateway
        return [
            ("ring alone: keys / organizations", f"{ring.keys:,} / {self.organizations:,}"),
            ("ring alone: loaded in", f"{ring.load_seconds:.1f} s"),
            ("ring alone: memory", f"{ring.bytes_per_key:.0f} bytes a key"),
            ("ring alone: find, digest included", f"{ring.find_microseconds:.2f} µs"),
            ("ring alone: refresh", f"{ring.refreshed:,} keys in {ring.refresh_seconds:.1f} s"),
            ("ring alone: longest pause during the refresh", f"{ring.pause_ms:.1f} ms"),
            ("gateway: throughput with one key", f"{gateway.one_key_per_second:,.0f}/s"),
            (f"gateway: first requests of {gateway.keys:,} keys", f"{gateway.fill_per_second:,.0f}/s"),
            ("gateway: throughput with these at random", f"{gateway.random_keys_per_second:,.0f}/s"),
            ("gateway: memory of the worker", f"{gateway.bytes_per_key:.0f} bytes a key"),
            ("gateway: refresh", f"{gateway.refreshed:,} keys in {gateway.refresh_seconds:.1f} s"),
            (f"gateway: p99 at {gateway.rate:,.0f}/s without refresh", f"{gateway.quiet_p99_ms:.2f} ms"),
            ("gateway: p99 during the refresh", f"{gateway.refreshing_p99_ms:.2f} ms ({self.refresh_ratio:.2f} ×)"),
            *((f"throughput, workers: {count}", f"{rate:,.0f}/s") for count, rate in self.workers.items()),
        ]

    @property
    def refresh_ratio(self) -> float:
        """p99 during the refresh over p99 without; nan when no request met it."""
        quiet = self.gateway.quiet_p99_ms
        return self.gateway.refreshing_p99_ms / quiet if quiet else math.nan


async def _fill(url: str, keys: int, organizations: int, on_rows: Callable[[int], None]) -> None:
    async with Database(url, name="growth") as database:
        async for rows in population.fill(database, keys, organizations):
            on_rows(rows)


def _measure(keys: int, organizations: int, sample: int, seconds: float, progress: Progress) -> Figures:
    with installation(Placement.apart()) as found:
        url = found.environment["DATABASE_URL"]
        task = progress.add_task("database", total=keys + organizations)
        asyncio.run(_fill(url, keys, organizations, lambda rows: progress.advance(task, rows)))
        task = progress.add_task("key ring", total=keys)
        ring = asyncio.run(growth_ring.measure(url, keys, lambda count: progress.advance(task, count)))
        task = progress.add_task("gateway", total=None)
        growth = Growth(found, sample, seconds, lambda step: progress.update(task, description=f"gateway: {step}"))
        gateway = growth.one_worker()
        return Figures(organizations, ring, gateway, {str(count): growth.workers(count) for count in (1, 2)})


@click.command()
@click.option("--keys", type=click.IntRange(100, 5_000_000), default=1_000_000, show_default=True)
@click.option("--organizations", type=click.IntRange(1, 1_000_000), default=100_000, show_default=True)
@click.option(
    "--sample", type=click.IntRange(100, 1_000_000), default=200_000, show_default=True, help="Keys for the gateways."
)
@click.option("--seconds", type=click.FloatRange(0.2, 60), default=5.0, show_default=True, help="For each run.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the table.")
def main(keys: int, organizations: int, sample: int, seconds: float, as_json: bool) -> None:
    """Fills a database of its own and measures what its size costs.

    All keys are loaded into a key ring by itself (KeyRing and Store, no requests); --sample of them into gateways, by
    requests, for throughput, memory, and p99 while the ring is refreshed. Then 1 worker, on a processor of its own,
    against 2 on all processors.

    Exit status: 0 measured, 1 not to be measured or requests failed, 2 bad usage.
    """
    if organizations > keys:
        raise click.UsageError("more organizations than keys: those without would not be seen")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    logger.disable("app")  # what fails is told once, in the command's own words
    console = Console(stderr=True)
    try:
        with Progress(console=console, transient=True, disable=as_json or not console.is_terminal) as progress:
            figures = _measure(keys, organizations, min(sample, keys), seconds, progress)
    except StoreUnavailable as failure:
        raise click.ClickException(f"the database cannot be used: {failure}") from failure
    if as_json:
        show_json(asdict(figures))
    else:
        show_table(("", "growth"), figures.rows())


if __name__ == "__main__":
    main(prog_name="python -m tools.growth")
