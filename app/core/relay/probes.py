"""Active probes: every target's health path is asked now and then, and its balancer told what was found.

In the background: one task a worker, through httpx, on connections of its own that are not kept.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Sequence
from typing import Final, Self

import httpx

from app.core.relay.balancer import Balancer
from app.core.relay.target import Target

ROUND_SECONDS: Final = 2.0
"""Between two rounds, give or take a tenth. Two failed probes in a row count: see standing.PROBES_FAILED_MAX."""
PROBE_SECONDS: Final = 2.0
AT_ONCE_MAX: Final = 16


class Probes:
    """`path` is asked of each target as it is, without its base path. An async context manager."""

    def __init__(self, balancers: Sequence[Balancer], path: str) -> None:
        self._balancers = balancers
        self._path = path
        self._room = asyncio.Semaphore(AT_ONCE_MAX)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(ssl.create_default_context()), name="backend probes")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, tls: ssl.SSLContext) -> None:
        while True:
            # A client of its own for each round: httpcore 1.0.9 loses room in its pool when a request is cancelled.
            async with httpx.AsyncClient(
                verify=tls, trust_env=False, timeout=PROBE_SECONDS, headers={"User-Agent": "gateway-probe"}
            ) as client:
                asked = [(balancer, target) for balancer in self._balancers for target in balancer.targets]
                await asyncio.gather(*(self._probe(client, balancer, target) for balancer, target in asked))
            await asyncio.sleep(ROUND_SECONDS * random.uniform(0.9, 1.1))  # noqa: S311 - no secret

    async def _probe(self, client: httpx.AsyncClient, balancer: Balancer, target: Target) -> None:
        async with self._room:
            balancer.probed(target, await self._problem(client, target))

    async def _problem(self, client: httpx.AsyncClient, target: Target) -> str | None:
        """What is wrong, None for 2xx and 3xx. The body is not read: its size is the target's business."""
        backend = target.backend
        try:
            async with asyncio.timeout(PROBE_SECONDS):  # httpx's own starts anew with each byte
                url = f"{backend.scheme}://{backend.authority.decode()}{self._path}"
                async with client.stream("GET", url) as answer:
                    is_good = answer.is_success or answer.is_redirect
                    return None if is_good else f"answered {answer.status_code}"
        except Exception as error:  # noqa: BLE001 - whatever it was, the target was not found healthy
            return f"failed: {type(error).__name__}"
