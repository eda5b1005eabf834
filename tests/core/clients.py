"""Clients of a Limiter, many at once, in this process or as one of several."""

from __future__ import annotations

import asyncio
import sys

import orjson
import uvloop

from app.core.limits.limiter import Limiter
from app.core.model import Limits, Organization, RedisAddress, Verdict
from app.core.redis.link import RedisLink

PATIENT_SECONDS = 100_000.0
"""A deadline for tests of exactness: a crowded machine is late, and a clock that a test sets jumps by minutes."""


async def hammer(limiter: Limiter, organization: Organization, clients: int, requests_each: int) -> list[Verdict]:
    """The verdicts of `clients` clients, each asking again as soon as it was answered."""

    async def client() -> list[Verdict]:
        return [await limiter.admit(organization) for _ in range(requests_each)]

    return [verdict for verdicts in await asyncio.gather(*(client() for _ in range(clients))) for verdict in verdicts]


def left(verdict: Verdict) -> int:
    """What the minute still admits, saved requests included."""
    return verdict.remaining_minute + verdict.burst_remaining


def admitted(verdicts: list[Verdict]) -> list[Verdict]:
    return [verdict for verdict in verdicts if verdict.refused_by is None]


async def main(port: int, organization: Organization, node: str, clients: int, requests_each: int) -> None:
    """Prints "ready", waits for a line, hammers, and prints [minute, left] of every request that was admitted."""
    async with (
        RedisLink(RedisAddress("127.0.0.1", port), name=node) as link,
        Limiter(link, node=node, workers=1, deadline_seconds=PATIENT_SECONDS) as limiter,
    ):
        print("ready" if limiter.is_exact else "not connected", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        verdicts = await hammer(limiter, organization, clients, requests_each)
    print(orjson.dumps([[verdict.reset_minute, left(verdict)] for verdict in admitted(verdicts)]).decode(), flush=True)


if __name__ == "__main__":
    port, id_, per_minute, burst, node, clients, requests_each = sys.argv[1:]
    limits = Limits(int(per_minute), 1_000_000, int(burst))
    uvloop.run(main(int(port), Organization(id_, "premium", limits), node, int(clients), int(requests_each)))
