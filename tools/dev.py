"""The gateway on this machine, with everything it needs: what `tools/dev` runs."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import click
import httpx

from app.core.process.settings import load_or_exit
from tools import procfile, stopping
from tools.servers import ROOT, DevSettings, Servers, clear_data, only_one, servers, write_environment

TECHSTART = "00000000-0000-0000-0000-000000000002"
READY_SECONDS = 60.0
STEP_SECONDS = 120.0


def check_port(port: int) -> None:
    """Raises a ClickException when something listens on `port` already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 -- where the gateway will listen
        except OSError as failure:
            advice = f"another one will do: PORT={port + 10} tools/dev"
            raise click.ClickException(f"port {port} cannot be used ({failure.strerror}); {advice}") from None


def step(environment: dict[str, str], *arguments: str) -> str:
    """Runs one of the project's own commands and answers its output. Raises a ClickException with what it says."""
    command = [sys.executable, "-m", *arguments]
    deadline = time.monotonic() + STEP_SECONDS
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                told, errors = process.communicate(timeout=0.2)
                break
            if stopping.asked.is_set() or time.monotonic() > deadline:
                process.kill()
    stopping.end()
    if process.returncode:
        reason = (errors or told).strip().removeprefix("Error: ") or "it did not end in time"
        raise click.ClickException(f"python -m {' '.join(arguments)}: {reason}")
    return told


def demo_key(environment: dict[str, str]) -> str:
    """A key of TechStart Inc (premium) that ends by itself after tomorrow: every run makes another."""
    end = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    told = step(
        environment,
        *("tools.keygen", "create", "--json", "--org-id", TECHSTART, "--name", "tools/dev", "--expires", end),
        *("--created-by", "tools/dev"),
    )
    return str(json.loads(told)["api_key"])


def invitation(found: Servers, key: str) -> str:
    """What to paste, between rules: a frame's sides would be copied along with the line."""
    rule = "─" * 78
    port, service, admin_port = found.port, found.service, found.admin_port
    token = found.admin_token or "<a token of ADMIN_TOKENS>"
    return f"""
{rule}
The gateway is ready. In another terminal:

  curl -i -H "Authorization: Bearer {key}" http://localhost:{port}/{service}/hello

  curl http://localhost:{port}/health

The admin API, with a page to read about it at http://localhost:{admin_port}/docs:

  curl -H "Authorization: Bearer {token}" http://localhost:{admin_port}/v1/organizations

For tools.keygen and the other commands:  . .dev/env; .venv/bin/python -m tools.keygen --help

Ctrl-C stops everything. The data stays in .dev/; tools/dev --reset starts clean.
{rule}
"""


def is_ready(port: int) -> bool:
    """Whether /health/ready answers 200 before a signal, and within READY_SECONDS."""
    deadline = time.monotonic() + READY_SECONDS
    with httpx.Client(timeout=2, trust_env=False) as client:
        while time.monotonic() < deadline and not stopping.asked.wait(0.1):
            with contextlib.suppress(httpx.HTTPError):
                if client.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200:
                    return True
    return False


def invite(found: Servers, key: str) -> None:
    """Prints the invitation once both of its lines work: the gateway's and the admin API's."""
    if is_ready(found.port) and is_ready(int(found.admin_port)):
        click.echo(invitation(found, key))
    elif not stopping.asked.is_set():
        click.echo(f"Not everything is ready after {READY_SECONDS:.0f} s; the lines above say why.", err=True)


def _run(settings: DevSettings) -> int:
    with servers(settings) as found:
        write_environment(found.environment)
        click.echo("preparing the database")
        step(found.environment, "db", "migrate")
        step(found.environment, "db", "seed")
        key = demo_key(found.environment)
        try:
            processes = procfile.processes(ROOT / "Procfile")
            environment = {"SHUTDOWN_DELAY": "0", **found.environment}  # no router is there to be told
            return procfile.run(processes, environment, ROOT, lambda: invite(found, key))
        finally:
            stopping.asked.set()


@click.command()
@click.option("--reset", is_flag=True, help="Forget the data of earlier runs first.")
def main(reset: bool) -> None:
    """Runs the gateway with everything it needs, until Ctrl-C.

    PostgreSQL, Redis and a sample backend are started unless DATABASE_URL, REDIS_URL and BACKEND_URLS (environment or
    .env) name others. PORT moves the gateway away from 8080.
    """
    os.chdir(ROOT)
    stopping.listen()
    settings = load_or_exit(DevSettings)
    check_port(settings.port)
    with only_one():
        if reset:
            clear_data()
        status = _run(settings)
    raise SystemExit(status)


if __name__ == "__main__":
    main(prog_name="tools/dev")
