"""`python -m db`: migrate, status, seed. Exit status 0 done, 1 refused with one line that says why, 2 bad usage."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import psycopg
from rich.console import Console
from rich.table import Table

from app.core.process.settings import DatabaseSettings, load_or_exit
from db import migrate as migrations

SEED: Final = Path(__file__).parent / "seed.sql"


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Turns what can go wrong at the database into click's one line on standard error and exit status 1."""
    try:
        yield
    except migrations.MigrationRefused as error:
        raise click.ClickException(str(error)) from error
    except psycopg.errors.UndefinedTable as error:
        raise click.ClickException("the database has no tables yet: run `python -m db migrate` first") from error
    except psycopg.Error as error:
        raise click.ClickException(f"database: {next(iter(str(error).splitlines()), type(error).__name__)}") from error


def _url() -> str:
    url = load_or_exit(DatabaseSettings).database_url
    if url is None:
        raise click.ClickException("DATABASE_URL is not set, expected postgresql://user:password@host:port/database")
    return url


@click.group()
def main() -> None:
    """The gateway's database, at DATABASE_URL."""


@main.command()
def migrate() -> None:
    """Apply the migrations that are pending. Safe to run again, and from several machines at once."""
    with _refusing():
        names = migrations.migrate(_url())
    for name in names:
        click.echo(f"applied {name}")
    if not names:
        click.echo("nothing to apply, the database is up to date")


@main.command()
def status() -> None:
    """Show which migrations were applied and when, and which are pending."""
    with _refusing():
        files = migrations.available()
        with migrations.connect(_url()) as connection:
            done = {row.name: row for row in migrations.applied(connection)}
        waiting = migrations.pending(files, list(done.values()))
    table = Table("migration", "status", "applied at (UTC)")
    for file in files:
        row = done.get(file.name)
        table.add_row(file.name, "applied" if row else "pending", f"{row.at:%Y-%m-%d %H:%M:%S}" if row else "")
    Console().print(table)
    click.echo(f"{len(done)} applied, {len(waiting)} pending")


@main.command()
def seed() -> None:
    """Insert the four demo organizations, unless they are there already."""
    with _refusing(), migrations.connect(_url()) as connection:
        added = connection.execute(SEED.read_bytes()).rowcount
    click.echo(f"added {added} of 4 demo organizations" if added else "the demo organizations were there already")


if __name__ == "__main__":
    main(prog_name="python -m db")
