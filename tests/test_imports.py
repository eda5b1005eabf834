"""The import rules, read from the source: who may know whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "app" / "core"
PROGRAMS = ("app", "admin", "db", "tools")

OUTSIDE = frozenset(
    {"asyncio", "coredis", "httpx", "loguru", "psycopg", "psycopg_pool", "sanic", "socket", "ssl", "threading"}
)
"""What a pure module does without: the world, the time it takes, and the log."""
PURE = frozenset({"errors", "model", "credential", "routing", "headers", "settings", "envelope", "bucket"})
"""Pure by decision. Every other module of core that neither waits nor imports any of OUTSIDE counts as pure."""
FAMILIES = (
    frozenset({"output"}),
    frozenset({"telemetry"}),
    frozenset({"upstream", "peer"}),
    frozenset({"redis", "redis_wire", "redis_errors"}),
    frozenset({"changes"}),
    frozenset({"presence", "roster"}),
    frozenset({"keyring", "refresh", "refresher"}),
    frozenset({"usage"}),
    frozenset({"database", "store", "issuer", "operations", "ledger", "listing", "idempotency"}),
    frozenset({"limiter", "gauge", "tally", "waiting", "watch"}),
)
"""The wired modules: each resource, with the parts that its module was split into. The mains bring them together."""
USERS_OF_REDIS = ("changes", "limiter", "presence")


def files(program: str) -> list[Path]:
    return sorted((ROOT / program).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, by its full name; `from package import name` counts as `package.name` too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top_level(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def core_imports(path: Path) -> set[str]:
    """The modules of app/core that a file imports."""
    names = {name.removeprefix("app.core.").partition(".")[0] for name in imports(path) if name.startswith("app.core.")}
    return {name for name in names if (CORE / f"{name}.py").exists()}


def waits(path: Path) -> bool:
    return any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(ast.parse(path.read_text())))


def is_wired(path: Path) -> bool:
    return waits(path) or bool(top_level(path) & OUTSIDE)


def family(module: str) -> frozenset[str]:
    return next((members for members in FAMILIES if module in members), frozenset())


@pytest.mark.parametrize("path", files("app/core"), ids=lambda path: path.stem)
def test_core_knows_none_of_its_callers(path: Path) -> None:
    """The core library imports neither Sanic nor the apps, tools and migrations that use it."""
    assert not top_level(path) & {"sanic", "sanic_ext", "gunicorn", "admin", "tools", "db", "tests"}
    assert not [name for name in imports(path) if name.startswith("app.") and not name.startswith("app.core")]


@pytest.mark.parametrize("path", [path for path in files("app/core") if not is_wired(path)], ids=lambda path: path.stem)
def test_pure_modules_import_pure_ones(path: Path) -> None:
    """A module without I/O depends on none that has some."""
    assert not [name for name in core_imports(path) if is_wired(CORE / f"{name}.py")]


@pytest.mark.parametrize("module", sorted(PURE))
def test_what_must_be_pure_is(module: str) -> None:
    """The modules that decide do no I/O and wait for nothing."""
    assert not is_wired(CORE / f"{module}.py")


@pytest.mark.parametrize("path", [path for path in files("app/core") if is_wired(path)], ids=lambda path: path.stem)
def test_wired_modules_do_not_know_each_other(path: Path) -> None:
    """A module that owns a resource knows the parts of that resource only; those that use Redis also Redis."""
    members = family(path.stem)
    assert members, f"{path.stem} does I/O: name its resource in FAMILIES"
    allowed = set(members)
    if any(user in members for user in USERS_OF_REDIS):
        allowed |= family("redis")
    others = {name for name in core_imports(path) if is_wired(CORE / f"{name}.py")}
    assert others <= allowed


@pytest.mark.parametrize(
    ("library", "modules"),
    [
        ("coredis", family("redis")),
        ("psycopg", family("database")),
        ("psycopg_pool", family("database")),
        ("gunicorn", frozenset({"workers"})),
        ("pydantic_settings", frozenset({"settings"})),
    ],
)
def test_a_library_has_one_place(library: str, modules: frozenset[str]) -> None:
    """What can be exchanged or may surprise is known to one place (and PostgreSQL to the migrations as well)."""
    users = {path for program in PROGRAMS for path in files(program) if library in top_level(path)}
    strangers = [str(path.relative_to(ROOT)) for path in users if path.stem not in modules]
    assert [name for name in strangers if not (library == "psycopg" and name.startswith("db/"))] == []


def test_programs_meet_in_core_only() -> None:
    """The apps, the tools and the migrations know the core library and themselves, never each other."""
    for program in PROGRAMS:
        for path in files(program):
            known = {name for name in imports(path) if name.partition(".")[0] in PROGRAMS}
            foreign = {name for name in known if not (name == program or name.startswith((f"{program}.", "app.core")))}
            assert foreign - {"app"} == set(), path


def test_settings_alone_read_the_environment() -> None:
    """No module but the settings reads the environment.

    `tools/servers.py` only hands its own on to what it starts; `app/__main__.py` corrects what gunicorn finds there.
    """
    readers = {
        path.relative_to(ROOT).as_posix()
        for program in PROGRAMS
        for path in files(program)
        if any(name in path.read_text() for name in ("os.environ", "os.getenv", "from os import"))
    }
    assert readers - {"tools/servers.py", "app/__main__.py"} == set()
    assert "os.environ" not in (CORE / "settings.py").read_text()  # pydantic-settings does
