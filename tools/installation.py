"""An installation to measure: PostgreSQL, Redis, a cheap backend, and whatever gateway is put before it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urljoin, urlsplit

import click
import httpx

from tools.dev import step
from tools.embedded import RedisServer, free_port, postgres
from tools.peers import KEY, Peer
from tools.placement import Placement, Processors, placed
from tools.plan import GATEWAY, Endpoint
from tools.servers import ROOT

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
PER_MINUTE, PER_DAY = 100_000_000, 2_000_000_000
"""Limits that no bench reaches: they are checked and counted as any others."""


@dataclass(frozen=True, slots=True)
class Target(Endpoint):
    """An endpoint of a process that was started here; `log` is its output."""

    pid: int
    log: Path

    @property
    def worker_pids(self) -> list[int]:
        """The children of the process; itself when it has none (Caddy), or where the kernel does not tell."""
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            return [int(pid) for pid in children] or [self.pid]
        return [self.pid]


class Installation:
    """Servers that run until its context is left. `environment` is a gateway's; `origin_port` the backend's."""

    def __init__(self, folder: Path, placement: Placement, environment: dict[str, str], origin_port: int) -> None:
        self._folder = folder
        self.placement = placement
        self.environment = environment
        self.origin_port = origin_port

    @property
    def origin_url(self) -> str:
        return f"http://127.0.0.1:{self.origin_port}"

    def organization_key(self) -> str:
        """A key of a new organization with limits that no bench reaches. Raises a ClickException."""
        told = step(self.environment, "tools.orgs", "create", "--name", "bench", "--tier", "enterprise", "--json")
        organization = str(json.loads(told)["id"])
        figures = ("--per-minute", str(PER_MINUTE), "--per-day", str(PER_DAY), "--burst", "0")
        step(self.environment, "tools.orgs", "set-limits", "--org-id", organization, *figures)
        told = step(self.environment, "tools.keygen", "create", "--org-id", organization, "--name", "bench", "--json")
        return str(json.loads(told)["api_key"])

    @contextlib.contextmanager
    def gateway(self, key: str, path: str = "/api/users", *, workers: int = 1, **variables: str) -> Iterator[Target]:
        """`python -m app` as it ships, until the context is left. Raises a ClickException when it does not answer.

        Several workers have all processors: one would be no place for them.
        """
        port = free_port()
        environment = {
            **self.environment,
            "GATEWAY_PORT": str(port),
            "WEB_CONCURRENCY": str(workers),
            **variables,
        }
        processors = self.placement.measured if workers == 1 else self.placement.anywhere
        command, url = [sys.executable, "-m", "app"], f"http://127.0.0.1:{port}{path}"
        with self._running(GATEWAY, command, url, key, environment, processors) as target:
            yield target

    @contextlib.contextmanager
    def peer(self, peer: Peer, path: str = "/api/users") -> Iterator[Target]:
        """Another gateway in the same place, with one worker."""
        port = free_port()
        folder = self._new_folder(peer.name)
        redis = urlsplit(self.environment["REDIS_URL"]).port
        command = peer.command(folder, port=port, origin=self.origin_port, redis=redis)
        environment = {"PATH": os.defpath, "GOMAXPROCS": "1", "HOME": str(folder)}
        processors, url = self.placement.measured, f"http://127.0.0.1:{port}{path}"
        with self._running(peer.name, command, url, KEY, environment, processors) as target:
            yield target

    def _new_folder(self, name: str) -> Path:
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))
        folder.chmod(0o755)  # nginx's worker is another user when we are root
        return folder

    @contextlib.contextmanager
    def _running(
        self,
        name: str,
        command: Sequence[str],
        url: str,
        key: str,
        environment: Mapping[str, str],
        processors: Processors | None,
    ) -> Iterator[Target]:
        log = self._new_folder(name) / "output.log"
        with running(command, log, environment, processors) as process:
            target = Target(name, url, key, process.pid, log)
            _wait_for(target, process)
            yield target


@contextlib.contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str], processors: Processors | None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, its output in `log`; ended when the context is left."""
    with log.open("ab") as output, placed(processors):
        process = subprocess.Popen(
            command, env=environment, cwd=log.parent, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for(target: Target, process: subprocess.Popen[bytes]) -> None:
    """Returns once its root answers 200. Raises a ClickException with its last line when it does not."""
    headers = {"Authorization": f"Bearer {target.key}"} if target.key else {}
    told = "it does not answer"
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(timeout=5, trust_env=False, headers=headers) as client:
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                status = client.get(urljoin(target.url, "/")).status_code
                if status == 200:
                    return
                told = f"it answers {status}"
            time.sleep(0.05)  # between two attempts to connect
    lines = target.log.read_text(errors="replace").splitlines()
    raise click.ClickException(f"{target.name} did not start: {lines[-1] if lines else told}")


@contextlib.contextmanager
def installation(placement: Placement) -> Iterator[Installation]:
    """Starts everything but a gateway, in a folder that is removed again. Raises a ClickException."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-bench-")))
        folder.chmod(0o755)  # PostgreSQL runs as another user when we are root
        stack.enter_context(placed(placement.around))
        try:
            database_url = stack.enter_context(postgres(folder / "postgres"))
            redis = stack.enter_context(RedisServer(folder / "redis", None, "--appendonly", "no"))
        except (OSError, RuntimeError, subprocess.SubprocessError) as failure:
            raise click.ClickException(f"the servers to measure with did not start: {failure}") from failure
        origin_port = free_port()
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}",
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": database_url,
            "REDIS_URL": redis.url,
            "BACKEND_URLS": f"api=http://127.0.0.1:{origin_port}",
        }
        command = [sys.executable, "-m", "tools.origin", "--port", str(origin_port)]
        process = stack.enter_context(running(command, folder / "origin.log", environment, placement.around))
        origin = Target("backend", f"http://127.0.0.1:{origin_port}/", None, process.pid, folder / "origin.log")
        _wait_for(origin, process)
        step(environment, "db", "migrate")
        yield Installation(folder, placement, environment, origin_port)
