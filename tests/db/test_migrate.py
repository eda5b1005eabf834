"""The migration runner: once, in order, all or nothing, and never over what was changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from db.migrate import FOLDER, MigrationRefused, available, migrate
from tests.command import ROOT
from tests.tenants import sql

NewDatabase = Callable[..., str]


@pytest.fixture
def url(new_database: NewDatabase) -> str:
    """An empty database."""
    return new_database(migrated=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of migrations with a first one in it."""
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE first (id int); INSERT INTO first VALUES (1);")
    return tmp_path


def test_each_file_is_applied_once_and_in_order(url: str, folder: Path) -> None:
    """What is pending is applied in the order of the numbers; a second call finds nothing to do."""
    (folder / "0010_third.sql").write_text("ALTER TABLE second ADD third int")
    (folder / "0002_second.sql").write_text("ALTER TABLE first RENAME TO second")
    assert migrate(url, folder) == ["0001_first.sql", "0002_second.sql", "0010_third.sql"]
    assert migrate(url, folder) == []
    (folder / "0011_fourth.sql").write_text("DROP TABLE second")
    assert migrate(url, folder) == ["0011_fourth.sql"]


def test_a_file_that_fails_leaves_nothing_behind(url: str, folder: Path) -> None:
    """A failing migration is taken back as a whole, those before it stay, and it can be mended and run again."""
    broken = folder / "0002_second.sql"
    broken.write_text("CREATE TABLE second (id int); SELECT 1 / 0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(url, folder)
    assert sql(url, "SELECT to_regclass('first')::text, to_regclass('second')::text") == [("first", None)]
    assert sql(url, "SELECT name FROM schema_migrations") == [("0001_first.sql",)]
    broken.write_text("CREATE TABLE second (id int)")
    assert migrate(url, folder) == ["0002_second.sql"]


def test_line_ends_of_a_checkout_do_not_matter(url: str, folder: Path) -> None:
    """The same file with other line ends is the same migration."""
    path = folder / "0001_first.sql"
    path.write_bytes(b"CREATE TABLE first\n(id int)\n")
    migrate(url, folder)
    path.write_bytes(b"CREATE TABLE first\r\n(id int)\r\n")
    assert migrate(url, folder) == []


def test_a_file_changed_after_it_was_applied_is_refused(url: str, folder: Path) -> None:
    """The database's state must be what the files say: an edited file stops everything, by name."""
    migrate(url, folder)
    (folder / "0001_first.sql").write_text("CREATE TABLE other (id int)")
    (folder / "0002_second.sql").write_text("CREATE TABLE second (id int)")
    with pytest.raises(MigrationRefused, match=r"0001_first\.sql was changed after it was applied"):
        migrate(url, folder)
    assert sql(url, "SELECT to_regclass('second')") == [(None,)]


def test_a_file_that_went_missing_is_refused(url: str, folder: Path) -> None:
    """Code older than the database does not touch it."""
    migrate(url, folder)
    (folder / "0001_first.sql").rename(folder / "0002_renamed.sql")
    with pytest.raises(MigrationRefused, match=r"0001_first\.sql was applied but its file is missing"):
        migrate(url, folder)


def test_a_file_that_comes_too_late_is_refused(url: str, folder: Path) -> None:
    """A new file may not go before one that was applied: the next machine would apply them in another order."""
    (folder / "0003_third.sql").write_text("SELECT 1")
    migrate(url, folder)
    (folder / "0002_second.sql").write_text("SELECT 1")
    with pytest.raises(MigrationRefused, match=r"0002_second\.sql comes before 0003_third\.sql"):
        migrate(url, folder)


@pytest.mark.parametrize("name", ["0001_again.sql", "2_short.sql", "0002-dash.sql", "0002_Capital.sql", "x.sql"])
def test_files_that_have_no_clear_place_are_refused(folder: Path, name: str) -> None:
    """A number used twice or a name out of the pattern is a mistake, not something to guess about."""
    (folder / name).write_text("SELECT 1")
    with pytest.raises(MigrationRefused, match=name.replace(".", r"\.")):
        available(folder)


def test_several_machines_at_once_apply_each_file_once(url: str, tmp_path: Path) -> None:
    """Five processes that start together all succeed, and between them every file was applied exactly once."""
    shutil.copytree(FOLDER, tmp_path / "m")
    for number in range(9001, 9006):
        (tmp_path / "m" / f"{number}_more.sql").write_text(f"CREATE TABLE t{number} (id int); SELECT pg_sleep(0.02);")
    code = (
        "import sys, pathlib; from db.migrate import migrate; print(*migrate(sys.argv[1], pathlib.Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, url, str(tmp_path / "m")]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    outputs = [process.communicate(timeout=60)[0].split() for process in running]
    assert [process.returncode for process in running] == [0] * 5
    names = [file.name for file in available(tmp_path / "m")]
    assert sorted(name for output in outputs for name in output) == names
    assert sql(url, "SELECT name FROM schema_migrations ORDER BY name") == [(name,) for name in names]
