"""What the programme hurts: PostgreSQL, Redis and a detour to it, two backends, two gateways of two workers."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from tools.cluster import Cluster
from tools.dev import step
from tools.embedded import RedisServer, free_port
from tools.installation import running
from tools.servers import ROOT
from tools.storm.detour import Detour
from tools.storm.gateways import GatewayProcess
from tools.storm.tenants import Tenants

GATEWAYS: Final = 2
WORKERS: Final = 2
SHUTDOWN_SECONDS: Final = 3
STATIC_KEY: Final = "sk_test_" + "57a71c" * 5 + "00"
"""In VALID_API_KEYS of every gateway, which run on loopback for the length of a programme."""
SETTLE_SECONDS: Final = 30.0


class Stack:
    """Everything, running. `gateways` are started by `use`."""

    def __init__(self, folder: Path, cluster: Cluster, redis: RedisServer, detour: Detour, backends: str) -> None:
        self.cluster = cluster
        self.redis = redis
        self.detour = detour
        self.tenants = Tenants(cluster.url, redis.port)
        self._environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": cluster.url,
            "BACKEND_URLS": backends,
            "WEB_CONCURRENCY": str(WORKERS),
            "RATE_LIMIT_NODES": str(GATEWAYS),
            "SHUTDOWN_TIMEOUT": str(SHUTDOWN_SECONDS),
            "VALID_API_KEYS": f"{STATIC_KEY}:static:enterprise",
            "TRUSTED_PROXIES": "127.0.0.1",  # strangers come from addresses of their own (load.py)
        }
        step(self._environment, "db", "migrate")
        self.gateways = [GatewayProcess(name, folder, free_port(), {}) for name in ("a", "b")[:GATEWAYS]]
        self._is_detoured: bool | None = None

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(gateway.port for gateway in self.gateways)

    def use(self, *, detour: bool) -> None:
        """All gateways run and miss nothing; their way to Redis is the detour or the direct one."""
        if self._is_detoured is not detour:
            self.end_gateways()
            self.prepare(detour=detour)
            self.start_gateways()
        for gateway in self.gateways:
            if not gateway.waits_for(functools.partial(_is_calm, gateway), SETTLE_SECONDS):
                raise click.ClickException(f"gateway {gateway.name} did not recover from what came before")

    def prepare(self, *, detour: bool) -> None:
        self._is_detoured = detour
        redis_port = self.detour.port if detour else self.redis.port
        for gateway in self.gateways:
            gateway.environment = {
                **self._environment,
                "GATEWAY_PORT": str(gateway.port),
                "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            }

    def start_gateways(self) -> None:
        for gateway in self.gateways:
            gateway.start()

    def end_gateways(self) -> None:
        for gateway in self.gateways:
            gateway.end()


def _is_calm(gateway: GatewayProcess) -> bool:
    """Several looks: each is answered by one of its workers."""
    return len(gateway.worker_pids) == WORKERS and all(gateway.is_healthy() for _ in range(2 * WORKERS))


@contextlib.contextmanager
def stack() -> Iterator[Stack]:
    """Started in a folder that is removed again, and ended in an order that leaves nobody alone."""
    with contextlib.ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="gw-chaos-")))
        folder.chmod(0o755)  # PostgreSQL runs as another user when we are root
        try:
            cluster = parts.enter_context(Cluster(folder / "postgres"))
            redis = parts.enter_context(RedisServer(folder / "redis"))
        except (OSError, RuntimeError, subprocess.SubprocessError) as failure:
            raise click.ClickException(f"the servers did not start: {failure}") from failure
        detour = parts.enter_context(Detour(redis.port))
        urls = [f"{name}=http://127.0.0.1:{_backend(parts, folder, name, module)}" for name, module in BACKENDS.items()]
        made = Stack(folder, cluster, redis, detour, ",".join(urls))
        parts.callback(made.end_gateways)
        yield made


BACKENDS: Final = {"api": "tools.origin", "demo": "tools.demo_backend"}


def _backend(parts: contextlib.ExitStack, folder: Path, name: str, module: str) -> int:
    port = free_port()
    command = [sys.executable, "-m", module, "--port", str(port)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    parts.enter_context(running(command, folder / f"{name}.log", environment, None))
    return port
