"""Real servers for the tests: one PostgreSQL cluster and one Redis per test process, a fresh database for each test."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import hypothesis
import psycopg
import pytest
import uvloop

from db.migrate import migrate
from tools.embedded import RedisServer, postgres

_numbers = itertools.count(1)

# An example that waits for a processor is not slow; and one that fails is to fail in every run or in none. Others than
# these are looked for with --hypothesis-profile=default.
hypothesis.settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("steady")

NO_FSYNC = ("--appendfsync", "no")
"""For Redis in tests: nobody waits for the disk; what was acknowledged is written all the same, and survives a kill."""


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The tests run on the loop that the gateway runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder of this run's own with a short name: a unix socket's path may have no more than 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="gw-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def with_database(uri: str, name: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(uri)._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
def postgres_uri(short_folder: Path) -> Iterator[str]:
    """The cluster's maintenance database."""
    with postgres(short_folder / "pg") as uri:
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CREATE DATABASE template_gateway")
        migrate(with_database(uri, "template_gateway"))
        yield uri


@pytest.fixture
def new_database(postgres_uri: str) -> Iterator[Callable[..., str]]:
    """Makes databases: `new_database()` has the schema, `new_database(migrated=False)` is empty. Returns the URI."""
    made: list[str] = []

    def make(*, migrated: bool = True) -> str:
        name = f"test_{next(_numbers)}"
        template = "template_gateway" if migrated else "template0"
        with psycopg.connect(postgres_uri, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        made.append(name)
        return with_database(postgres_uri, name)

    yield make
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def database_url(new_database: Callable[..., str]) -> str:
    """A fresh database with the schema and no rows but the plans."""
    return new_database()


@pytest.fixture(scope="session")
def redis_server(short_folder: Path) -> Iterator[RedisServer]:
    """This test process's Redis. A test that hurts it starts its own instead (`own_redis`)."""
    with RedisServer(short_folder / "redis", None, *NO_FSYNC) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty Redis, shared with no other test."""
    with socket.create_connection(("127.0.0.1", redis_server.port), timeout=5) as connection:
        connection.sendall(b"FLUSHALL\r\nSCRIPT FLUSH\r\n")
        received = b""
        while received.count(b"+OK") < 2:
            received += connection.recv(64)
    return redis_server.url


@pytest.fixture
def own_redis(short_folder: Path) -> Iterator[RedisServer]:
    """A Redis that the test may kill, freeze and restart."""
    with RedisServer(short_folder / f"redis-{next(_numbers)}", None, *NO_FSYNC) as server:
        yield server
