"""Forward-only migrations: numbered SQL files, each applied once, in one transaction, under one lock.

Every step locks, looks and applies in a single transaction, so any number of machines may run it at the same moment, a
connection pooler between them and the database does no harm, and a step that fails leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import psycopg

FOLDER: Final = Path(__file__).parent / "migrations"
CONNECT_SECONDS: Final = 5
LOCK_WAIT_SECONDS: Final = 600
_LOCK: Final = 0x6761746577617900  # "gateway\0": any 64-bit number that no other program of the database uses
_NAME: Final = re.compile(r"\d{4}_[a-z0-9_]+\.sql")


class MigrationRefused(Exception):
    """Files and database contradict each other; the text says in one line how. Nothing was applied by this step."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `checksum` is the SHA-256 hex of its text with LF line ends, whatever a checkout made of them."""

    name: str
    sql: str
    checksum: str


@dataclass(frozen=True, slots=True)
class Applied:
    """One row of `schema_migrations`."""

    name: str
    checksum: str
    at: datetime


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """An autocommit connection, for a `with` block. Raises psycopg.Error after at most CONNECT_SECONDS per address."""
    return psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_SECONDS, application_name="gateway-db")


def available(folder: Path = FOLDER) -> list[Migration]:
    """The files, in order. Raises MigrationRefused for a name that is not `0001_words.sql` or a number used twice."""
    found = [_load(path) for path in sorted(folder.glob("*.sql"))]
    for earlier, later in itertools.pairwise(found):
        if earlier.name[:4] == later.name[:4]:
            raise MigrationRefused(f"migrations {earlier.name} and {later.name} have the same number")
    return found


def _load(path: Path) -> Migration:
    if not _NAME.fullmatch(path.name):
        raise MigrationRefused(f"migration {path.name} is misnamed, expected 0001_some_words.sql")
    sql = path.read_text(encoding="utf-8")
    return Migration(path.name, sql, hashlib.sha256(sql.encode()).hexdigest())


def applied(connection: psycopg.Connection[tuple[object, ...]]) -> list[Applied]:
    """What the database says was applied, in order; empty when it was never migrated."""
    if connection.execute("SELECT to_regclass('schema_migrations')").fetchone() == (None,):
        return []
    rows = connection.execute("SELECT name, checksum, applied_at FROM schema_migrations ORDER BY name")
    return [Applied(str(name), str(checksum), at) for name, checksum, at in rows if isinstance(at, datetime)]


def pending(files: Sequence[Migration], done: Sequence[Applied]) -> list[Migration]:
    """The files still to apply. Raises MigrationRefused when an applied one changed, vanished or would be overtaken."""
    by_name = {file.name: file for file in files}
    for row in done:
        if row.name not in by_name:
            raise MigrationRefused(f"migration {row.name} was applied but its file is missing: is this code too old?")
        if by_name[row.name].checksum != row.checksum:
            raise MigrationRefused(
                f"migration {row.name} was changed after it was applied: restore it and add a new one"
            )
    names = {row.name for row in done}
    waiting = [file for file in files if file.name not in names]
    if waiting and done and waiting[0].name < done[-1].name:
        raise MigrationRefused(
            f"migration {waiting[0].name} comes before {done[-1].name}, which was applied: renumber it"
        )
    return waiting


def migrate(url: str, folder: Path = FOLDER) -> list[str]:
    """Applies what is pending and returns the names that this call applied.

    Waits up to LOCK_WAIT_SECONDS for another machine's step. Raises MigrationRefused, or psycopg.Error when the
    database cannot be reached or refuses a statement; the steps before the failing one stay applied.
    """
    files = available(folder)
    names: list[str] = []
    with connect(url) as connection:
        while name := _apply_next(connection, files):
            names.append(name)
    return names


def _apply_next(connection: psycopg.Connection[tuple[object, ...]], files: Sequence[Migration]) -> str | None:
    with connection.transaction():
        connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{LOCK_WAIT_SECONDS}s",))
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        waiting = pending(files, applied(connection))
        if not waiting:
            return None
        _create_register(connection)
        connection.execute(waiting[0].sql.encode())
        connection.execute(
            "INSERT INTO schema_migrations (name, checksum) VALUES (%s, %s)", (waiting[0].name, waiting[0].checksum)
        )
        return waiting[0].name


def _create_register(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    connection.execute("""
        CREATE TABLE IF NOT EXISTS schema_migrations (
            name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
        )""")
