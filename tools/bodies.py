"""Large bodies down and up through the gateway: `python -m tools.bodies`. MB/s and memory, beside nginx's."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Final

import click
from rich.console import Console
from rich.progress import Progress

from tools import transfer
from tools.command import show_json, show_table
from tools.installation import Installation, Target, installation
from tools.memory import resident_bytes, resident_bytes_max
from tools.peers import NGINX
from tools.placement import Placement
from tools.transfer import TransferFailed

MEGA: Final = 1_000_000
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class BodyFigures:
    """One gateway's worker: how quickly `size_bytes` passed it, its memory before, and at most at any time after."""

    name: str
    size_bytes: int
    down_mb_per_second: float
    up_mb_per_second: float
    memory_before_mib: float
    memory_max_mib: float

    def cells(self) -> list[str]:
        rates = (f"{rate:,.0f} MB/s" for rate in (self.down_mb_per_second, self.up_mb_per_second))
        return [self.name, *rates, f"{self.memory_before_mib:.1f} MiB", f"{self.memory_max_mib:.1f} MiB"]


def measure(target: Target, size_bytes: int, on_bytes: Callable[[int], None]) -> BodyFigures:
    """One body down, one up. Raises TransferFailed."""
    worker = target.worker_pids[0]
    before = resident_bytes(worker)
    down_seconds = transfer.down(target, size_bytes, on_bytes)
    up_seconds = transfer.up(target, size_bytes, on_bytes)
    return BodyFigures(
        target.name,
        size_bytes,
        size_bytes / down_seconds / MEGA,
        size_bytes / up_seconds / MEGA,
        before / MIB,
        resident_bytes_max(worker) / MIB,
    )


def _starts(found: Installation, size_bytes: int) -> Iterator[Callable[[], AbstractContextManager[Target]]]:
    path = f"/bytes/{size_bytes}"
    key = found.organization_key()
    yield functools.partial(found.gateway, key, path, REQUEST_MAX_BYTES=str(max(size_bytes, 1)))
    if NGINX.is_installed():
        yield functools.partial(found.peer, NGINX, path)


def _measure_all(size_bytes: int, progress: Progress) -> list[BodyFigures]:
    with installation(Placement.apart()) as found:
        starts = list(_starts(found, size_bytes))
        task = progress.add_task("bodies", total=2 * size_bytes * len(starts))
        figures = []
        for start in starts:
            with start() as target:
                figures.append(measure(target, size_bytes, lambda count: progress.advance(task, count)))
        return figures


@click.command()
@click.option("--megabytes", type=click.IntRange(1, 10_000), default=1_000, show_default=True, help="Of each body.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the table.")
def main(megabytes: int, as_json: bool) -> None:
    """One body down and one up through a gateway of its own with one worker, then through nginx if it is installed.

    Exit status: 0 measured, 1 a body did not pass, 2 bad usage.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    console = Console(stderr=True)
    try:
        with Progress(console=console, transient=True, disable=as_json or not console.is_terminal) as progress:
            figures = _measure_all(megabytes * MEGA, progress)
    except TransferFailed as failure:
        raise click.ClickException(str(failure)) from failure
    if as_json:
        show_json({"bodies": [asdict(each) for each in figures]})
    else:
        show_table(("", "down", "up", "memory before", "memory at most"), [each.cells() for each in figures])


if __name__ == "__main__":
    main(prog_name="python -m tools.bodies")
