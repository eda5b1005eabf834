"""The servers of `tools/dev`: what neither the environment nor `.env` names runs here, its data under `.dev/`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click
from pydantic import Field

from app.core.process.settings import DatabaseSettings
from tools import stopping
from tools.embedded import RedisServer, free_port, postgres

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".dev"
T = TypeVar("T")


class DevSettings(DatabaseSettings):
    """What decides which servers to start. The processes read and judge the rest themselves."""

    backend_urls: str | None = Field(default=None, validation_alias="BACKEND_URLS")
    admin_port: str | None = Field(default=None, validation_alias="ADMIN_PORT")
    admin_tokens: str | None = Field(default=None, validation_alias="ADMIN_TOKENS", repr=False)


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the processes find what they need, as environment variables; and what to show of it to a person.

    `admin_token` is the token that was made for this run, None where ADMIN_TOKENS was set.
    """

    environment: dict[str, str]
    port: int
    service: str
    admin_port: str
    admin_token: str | None


def port_after(port: int) -> int:
    """The first one above `port` that nobody listens on: two checkouts with two PORTs do not meet."""
    return next(candidate for candidate in range(port + 1, 65_536) if _is_free(candidate))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Holds `.dev/lock`: two runs would share one data folder. Raises a ClickException when another run holds it."""
    DATA.mkdir(exist_ok=True)
    with (DATA / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException("tools/dev runs already in this folder") from None
        yield


def clear_data() -> None:
    """Removes everything under `.dev/` but the lock, which is held."""
    for entry in DATA.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != "lock":
            entry.unlink()


@contextlib.contextmanager
def demo_backend(port: int) -> Iterator[None]:
    """The sample backend, as long as the context lasts."""
    command = [sys.executable, "-m", "tools.demo_backend", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def start(
    stack: contextlib.ExitStack, name: str, folder: Path, server: Callable[[Path], AbstractContextManager[T]]
) -> T:
    """Runs a server with its data in `folder` until the stack unwinds.

    Raises a ClickException when it does not start, SystemExit when a signal was the reason.
    """
    click.echo(f"starting {name} (.dev/{folder.name})")
    try:
        started = stack.enter_context(server(folder))
    except (OSError, RuntimeError, subprocess.SubprocessError) as failure:
        stopping.end()  # Ctrl-C reaches the whole foreground group, so initdb too
        advice = f"see the logs in .dev/{folder.name}; tools/dev --reset starts clean"
        raise click.ClickException(f"{name} did not start: {advice}") from failure
    stopping.end()
    return started


@contextlib.contextmanager
def servers(settings: DevSettings) -> Iterator[Servers]:
    """Starts what the settings do not name, in an order in which each can be stopped after those that use it."""
    with contextlib.ExitStack() as stack:
        found = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        found.setdefault("PYTHONUNBUFFERED", "1")
        if settings.database_url is None:
            found["DATABASE_URL"] = start(stack, "PostgreSQL", DATA / "postgres", postgres)
        if settings.redis is None:
            found["REDIS_URL"] = start(stack, "Redis", DATA / "redis", RedisServer).url
        if settings.backend_urls is None:
            backend_port = free_port()
            click.echo(f"starting the sample backend on port {backend_port}")
            stack.enter_context(demo_backend(backend_port))
            found["BACKEND_URLS"] = f"demo=http://127.0.0.1:{backend_port}"
        if settings.admin_port is None:
            found["ADMIN_PORT"] = str(port_after(settings.port))
        token = None
        if settings.admin_tokens is None:
            token = secrets.token_urlsafe(32)  # another one in each run, and none that could be left behind in a file
            found["ADMIN_TOKENS"] = f"dev:owner:{token}"
        service = (settings.backend_urls or "demo").partition("=")[0].strip()
        yield Servers(found, settings.port, service, found.get("ADMIN_PORT", settings.admin_port or ""), token)


def write_environment(found: dict[str, str]) -> None:
    """`.dev/env`, for the other commands of a person at a shell: where the servers of this run are."""
    names = [name for name in ("DATABASE_URL", "REDIS_URL") if name in found]
    file = DATA / "env"
    file.touch(mode=0o600)  # a URL may hold a password
    file.write_text("".join(f"export {name}={shlex.quote(found[name])}\n" for name in names))
