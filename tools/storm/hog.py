"""Takes every connection that a PostgreSQL server has, until standard input ends: `python -m tools.storm.hog URL`.

Prints `full` once the server has none left and no gateway holds any.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack

import click

from app.core.data.database import Connection, StoreUnavailable, transaction
from tools.servers import ROOT

CONNECTIONS_MAX = 500
QUIET_ROUNDS = 5
PAUSE_SECONDS = 0.02
END_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND application_name <> 'hog'
"""


@contextlib.contextmanager
def all_taken(url: str) -> Iterator[None]:
    """As long as the context lasts; the process that takes them is killed then. Raises a ClickException."""
    command = [sys.executable, "-m", "tools.storm.hog", url]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as hog:
        try:
            if hog.stdout is None or hog.stdout.readline() != b"full\n":
                raise click.ClickException("the connections could not all be taken")
            yield
        finally:
            hog.kill()


async def _fill(stack: AsyncExitStack, url: str) -> list[Connection]:
    held: list[Connection] = []
    while len(held) < CONNECTIONS_MAX:
        try:
            held.append(await stack.enter_async_context(transaction(url, name="hog")))
        except StoreUnavailable:
            return held
    raise click.ClickException(f"the server has more than {CONNECTIONS_MAX} connections")


async def _hold(url: str) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, over.set)
    async with AsyncExitStack() as stack:
        held = await _fill(stack, url)
        quiet_rounds = 0
        while quiet_rounds < QUIET_ROUNDS and not over.is_set():
            held += await _fill(stack, url)
            await asyncio.sleep(PAUSE_SECONDS)
            quiet_rounds = 0 if await _end_others(held[0]) else quiet_rounds + 1
        click.echo("full")
        while not over.is_set():
            held += await _fill(stack, url)  # whatever became free
            await _end_others(held[0])
            await asyncio.sleep(PAUSE_SECONDS)
        for connection in held:
            await connection.close()


async def _end_others(own: Connection) -> int:
    """How many there were: gateways try all the time, and one may get in when another leaves."""
    await own.execute("SELECT pg_stat_clear_snapshot()")  # else a transaction sees the same for ever
    return (await own.execute(END_OTHERS)).rowcount


@click.command()
@click.argument("url")
def main(url: str) -> None:
    """Takes every connection of the server at URL, those of its gateways included."""
    asyncio.run(_hold(url))


if __name__ == "__main__":
    main()
