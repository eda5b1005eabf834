"""`python -m db`, as a person runs it."""

from __future__ import annotations

from collections.abc import Callable

from db.migrate import available
from tests.command import refusal, run
from tests.tenants import sql


def test_migrate_status_and_seed_from_an_empty_database(new_database: Callable[..., str]) -> None:
    """The three commands in the order of a first day, each safe to run again."""
    url = new_database(migrated=False)
    assert "migrate" in refusal(run("db", "seed", DATABASE_URL=url))
    before = run("db", "status", DATABASE_URL=url)
    assert (before.returncode, "0001_gateway.sql" in before.stdout, "pending" in before.stdout) == (0, True, True)

    heroku = url.replace("postgresql://", "postgres://")
    first, second = (run("db", "migrate", DATABASE_URL=heroku) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout.splitlines() == [f"applied {file.name}" for file in available()]
    assert second.stdout == "nothing to apply, the database is up to date\n"
    after = run("db", "status", DATABASE_URL=url)
    assert f"{len(available())} applied, 0 pending" in after.stdout

    assert run("db", "seed", DATABASE_URL=url).stdout == "added 4 of 4 demo organizations\n"
    assert sql(url, "SELECT right(id::text, 1), name, tier, active FROM organizations ORDER BY id") == [
        ("1", "Acme Corporation", "enterprise", True),
        ("2", "TechStart Inc", "premium", True),
        ("3", "BasicCo LLC", "basic", True),
        ("4", "Inactive Corp", "basic", False),
    ]
    sql(url, "UPDATE organizations SET name = 'Changed by hand', active = true")
    assert run("db", "seed", DATABASE_URL=url).returncode == 0
    assert sql(url, "SELECT DISTINCT name, active FROM organizations") == [("Changed by hand", True)]


def test_mistakes_get_one_line_and_the_right_status(database_url: str) -> None:
    """No variable, no server, no such database, a changed file, bad usage: each is one clear line."""
    assert "DATABASE_URL is not set" in refusal(run("db", "migrate"))
    assert "DATABASE_URL" in refusal(run("db", "migrate", DATABASE_URL="mysql://somewhere/x"))
    nobody = "postgresql://someone:secret@127.0.0.1:1/x"
    for command in ("migrate", "status", "seed"):
        line = refusal(run("db", command, DATABASE_URL=nobody))
        assert "Connection refused" in line
        assert "secret" not in line
    missing = database_url.replace("/test_", "/nosuch_")
    assert "does not exist" in refusal(run("db", "migrate", DATABASE_URL=missing))
    sql(database_url, "UPDATE schema_migrations SET checksum = 'another'")
    for command in ("migrate", "status"):
        assert "changed after it was applied" in refusal(run("db", command, DATABASE_URL=database_url))
    assert run("db", "rollback", DATABASE_URL=database_url).returncode == 2
