"""What the commands for operators share: from settings to an Issuer, from a refusal to one line and an exit status."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click
import orjson
from loguru import logger
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.core.changes.feed import publish
from app.core.data.database import StoreUnavailable, transaction
from app.core.data.issuer import Issuer
from app.core.data.rules import Refused
from app.core.model import Change
from app.core.process.settings import DatabaseSettings, load_or_exit
from app.core.redis.link import RedisLink

ACTOR: Final = "cli"
COMMAND_SECONDS: Final = 20
"""For a database that accepts connections and then says nothing; everything else ends sooner by itself."""

Result = TypeVar("Result")


def operate(verb: Callable[[Issuer], Awaitable[Result]]) -> Result:
    """Runs one verb on the database of the environment, gateways being told through its Redis if there is one.

    Ends the command with one line and status 1 for a bad configuration, a refusal, or a database that is away.
    """
    settings = load_or_exit(DatabaseSettings)
    if settings.database_url is None:
        raise click.ClickException("DATABASE_URL is not set, expected postgresql://user:password@host:port/database")
    logger.disable("app")  # a Redis that is away is told once, in the command's own words
    try:
        return asyncio.run(_run(verb, settings, settings.database_url))
    except Refused as refusal:
        raise click.ClickException(str(refusal)) from refusal
    except StoreUnavailable as failure:
        raise click.ClickException(f"the database cannot be used: {failure}") from failure
    except TimeoutError as failure:
        raise click.ClickException(f"the database did not answer within {COMMAND_SECONDS} s") from failure


async def _run(verb: Callable[[Issuer], Awaitable[Result]], settings: DatabaseSettings, url: str) -> Result:
    async def tell(changes: Sequence[Change]) -> int | None:
        if settings.redis is None:
            return None
        async with RedisLink(settings.redis, name=f"gateway-{ACTOR}") as link:
            return await publish(link, changes)

    transact = functools.partial(transaction, url, name=f"gateway-{ACTOR}")
    async with asyncio.timeout(COMMAND_SECONDS):
        return await verb(Issuer(transact, actor=ACTOR, publish=tell))


def show_json(value: dict[str, Any]) -> None:
    """One JSON object, alone on standard output."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def show_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on a terminal; lines with tabs between the columns where another program reads."""
    if not sys.stdout.isatty():
        click.echo("\n".join("\t".join(row) for row in (names, *rows)))
        return
    table = Table(*names)
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))  # Text: a name may look like markup
    Console().print(table)


def show_fields(fields: dict[str, str]) -> None:
    """One thing: a name and a value a line."""
    width = max(map(len, fields)) + 1
    for name, value in fields.items():
        click.echo(f"{name + ':':{width}} {value}")


def time_text(at: datetime | None, otherwise: str) -> str:
    """A point in time in UTC, to the second."""
    return otherwise if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def told(heard_by: int | None) -> str:
    """Who knows already, for a person."""
    if heard_by is None:
        return "no gateway was told at once (no Redis); they notice within 5 seconds"
    return f"told {counted(heard_by, 'gateway worker')} at once"


def counted(number: int, noun: str) -> str:
    """The number with its noun, which forms its plural with an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
