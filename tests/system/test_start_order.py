"""What a gateway needs may come after it: it starts, says what it lacks, and goes on from there."""

from __future__ import annotations

from collections.abc import Callable

from tests.gateway import STATIC_KEY, Gateway, until
from tools.embedded import RedisServer

Start = Callable[..., Gateway]


def test_a_redis_that_comes_late(start: Start, own_redis: RedisServer) -> None:
    """Started without its Redis, each worker counts its share and says so; Redis decides as soon as it is there."""
    own_redis.kill()
    gateway = start(REDIS_URL=own_redis.url)
    assert gateway.get("/x")["X-RateLimit-Mode"] == "local"
    assert gateway.get("/health", key=None).json()["status"] == "degraded"
    assert gateway.get("/health/ready", key=None).status == 200
    own_redis.start()
    until(lambda: gateway.get("/x").all("X-RateLimit-Mode") == [], "Redis to decide", 15)


def test_names_that_do_not_resolve_yet(start: Start) -> None:
    """Neither PostgreSQL nor Redis nor the backend has an address: it starts, and every answer is a proper one."""
    names = {"DATABASE_URL": "postgresql://u:p@db.invalid/d", "REDIS_URL": "redis://redis.invalid"}
    gateway = start(**names, BACKEND_URLS="api=http://api.invalid", VALID_API_KEYS=f"{STATIC_KEY}:org_1:premium")
    assert gateway.get("/health/live", key=None).status == 200
    reply = gateway.get("/health/ready", key=None)
    assert (reply.status, reply.json()["checks"]) == (503, {"database": "unreachable", "redis": "unreachable"})
    assert gateway.get("/x").status in (502, 504)
    assert gateway.get("/x", key="sk_live_" + "0" * 32).status == 503
    assert not gateway.log(level="error", message="worker ended by an error")
    assert gateway.stop() == 0
