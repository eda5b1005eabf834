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
PURE = frozenset(
    {"errors", "model", "envelope", "keys.credential", "relay.routing", "relay.headers", "process.settings"}
    | {"limits.bucket", "limits.announce", "relay.upgrade", "relay.frames", "relay.answer_reader"}
    | {"limits.bucket", "limits.announce"}
    | {"relay.balancer", "relay.target", "relay.standing", "relay.retry_budget"}
)
"""Pure by decision. Every other module of core that neither waits nor imports any of OUTSIDE counts as pure."""
FAMILIES = (
    frozenset({"process.output", "process.pending"}),
    frozenset({"process.telemetry"}),
    frozenset({"relay.upstream", "relay.peer", "relay.outbox", "relay.pool"}),
    frozenset({"relay.tunnel", "relay.reset"}),
    frozenset({"relay.upstream", "relay.peer", "relay.delivery"}),
    frozenset({"relay.probes"}),
    frozenset({"redis.link", "redis.wire", "redis.translation"}),
    frozenset({"changes.feed"}),
    frozenset({"changes.presence", "changes.roster"}),
    frozenset({"keys.keyring", "keys.lookups", "keys.refresh", "keys.refresher"}),
    frozenset({"keys.usage"}),
    frozenset(
        {"data.database", "data.store", "data.issuer", "data.operations", "data.ledger", "data.listing"}
        | {"data.idempotency"}
    ),
    frozenset(
        {"limits.limiter", "limits.asking", "limits.gauge", "limits.tally", "limits.waiting", "limits.watch"}
        | {"limits.outage", "limits.settlement"}
    ),
)
"""The wired modules: each resource, with the parts that its module was split into. The mains bring them together."""
USERS_OF_REDIS = ("changes.feed", "limits.limiter", "changes.presence")


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


def name_in_core(path: Path) -> str:
    """`limits.bucket` for app/core/limits/bucket.py; a room itself goes by its name."""
    return ".".join(path.relative_to(CORE).with_suffix("").parts).removesuffix(".__init__")


def file_in_core(name: str) -> Path:
    return CORE.joinpath(*name.split(".")).with_suffix(".py")


def core_imports(path: Path) -> set[str]:
    """The modules of app/core that a file imports."""
    names = {name.removeprefix("app.core.") for name in imports(path) if name.startswith("app.core.")}
    return {name for name in names if file_in_core(name).exists()}


def waits(path: Path) -> bool:
    return any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(ast.parse(path.read_text())))


def is_wired(path: Path) -> bool:
    return waits(path) or bool(top_level(path) & OUTSIDE) or name_in_core(path) == "relay.pool"  # a pool of peers


def family(module: str) -> frozenset[str]:
    return next((members for members in FAMILIES if module in members), frozenset())


@pytest.mark.parametrize("path", files("app/core"), ids=str)
def test_core_knows_none_of_its_callers(path: Path) -> None:
    """The core library imports neither Sanic nor the apps, tools and migrations that use it."""
    assert not top_level(path) & {"sanic", "sanic_ext", "gunicorn", "admin", "tools", "db", "tests"}
    assert not [name for name in imports(path) if name.startswith("app.") and not name.startswith("app.core")]


@pytest.mark.parametrize("path", [path for path in files("app/core") if not is_wired(path)], ids=str)
def test_pure_modules_import_pure_ones(path: Path) -> None:
    """A module without I/O depends on none that has some."""
    assert not [name for name in core_imports(path) if is_wired(file_in_core(name))]


@pytest.mark.parametrize("module", sorted(PURE))
def test_what_must_be_pure_is(module: str) -> None:
    """The modules that decide do no I/O and wait for nothing."""
    assert not is_wired(file_in_core(module))


@pytest.mark.parametrize("path", [path for path in files("app/core") if is_wired(path)], ids=str)
def test_wired_modules_do_not_know_each_other(path: Path) -> None:
    """A module that owns a resource knows the parts of that resource only; those that use Redis also Redis."""
    members = family(name_in_core(path))
    assert members, f"{path.name} does I/O: name its resource in FAMILIES"
    allowed = set(members)
    if any(user in members for user in USERS_OF_REDIS):
        allowed |= family("redis.link")
    others = {name for name in core_imports(path) if is_wired(file_in_core(name))}
    assert others <= allowed


@pytest.mark.parametrize(
    ("library", "modules"),
    [
        ("coredis", family("redis.link")),
        ("psycopg", family("data.database")),
        ("psycopg_pool", family("data.database")),
        ("gunicorn", frozenset({"app/arbiter.py", "app/workers.py"})),
        ("pydantic_settings", frozenset({"process.settings"})),
    ],
)
def test_a_library_has_one_place(library: str, modules: frozenset[str]) -> None:
    """What can be exchanged or may surprise is known to one place (and PostgreSQL to the migrations as well)."""
    users = {path for program in PROGRAMS for path in files(program) if library in top_level(path)}
    places = modules | {file_in_core(name).relative_to(ROOT).as_posix() for name in modules}
    strangers = [name for path in users if (name := path.relative_to(ROOT).as_posix()) not in places]
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

    `tools/servers.py` only hands its own on to what it starts, `app/__main__.py` only corrects what gunicorn finds, and
    `app/core/process/compiled.py` asks before there are settings.
    """
    readers = {
        path.relative_to(ROOT).as_posix()
        for program in PROGRAMS
        for path in files(program)
        if any(name in path.read_text() for name in ("os.environ", "os.getenv", "from os import"))
    }
    assert readers - {"tools/servers.py", "app/__main__.py", "app/core/process/compiled.py"} == set()
    assert "os.environ" not in (CORE / "process" / "settings.py").read_text()  # pydantic-settings does
