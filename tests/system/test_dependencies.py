"""A gateway with a real PostgreSQL and Redis that are there, come late, go away and come back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.command import run
from tests.gateway import STATIC_KEY, Gateway, until
from tools.cluster import Cluster
from tools.embedded import RedisServer, free_port

Start = Callable[..., Gateway]


@pytest.fixture
def cluster(short_folder: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A PostgreSQL of the test's own, migrated and running."""
    with Cluster(short_folder / f"pg-{abs(hash(request.node.name)) % 10**6}") as running:
        assert run("db", "migrate", DATABASE_URL=running.url).returncode == 0
        yield running


def new_key(url: str) -> str:
    """A key of a new premium organization."""
    made = run("tools.orgs", "create", "--name", "Acme", "--tier", "premium", "--json", DATABASE_URL=url)
    organization = json.loads(made.stdout)["id"]
    issued = run("tools.keygen", "create", "--org-id", organization, "--name", "k", "--json", DATABASE_URL=url)
    return str(json.loads(issued.stdout)["api_key"])


def is_ready(gateway: Gateway) -> bool:
    return gateway.get("/health/ready", key=None).status == 200


def test_what_it_says_at_start(start: Start, database_url: str, redis_url: str) -> None:
    """With everything there: the five lines of the contract, in its order, and nothing to warn of."""
    gateway = start(DATABASE_URL=database_url, REDIS_URL=redis_url)
    wanted = [
        "✅ Connected to PostgreSQL",
        "✅ Initialized API key cache (TTL: 15m)",
        "[RefreshManager] Starting background cache refresh (interval: 15m0s)",
        "✅ Connected to Redis for rate limiting",
        f"🚀 Gateway server starting on http://localhost:{gateway.port}",
    ]
    until(lambda: gateway.log(message=wanted[-1]), "the last of the lines")
    assert [each["message"] for each in gateway.log() if "message" in each] == wanted
    assert not gateway.log(level="warn")
    checks = gateway.get("/health/ready", key=None).json()
    assert (checks["ready"], checks["checks"]) == (True, {"database": "ok", "redis": "ok"})
    assert gateway.get("/health", key=None).json()["status"] == "healthy"


def test_a_database_that_comes_late(start: Start, cluster: Cluster) -> None:
    """Started without its database, the gateway says so (503) and serves static keys; it gets ready by itself."""
    key = new_key(cluster.url)
    cluster.stop()
    gateway = start(DATABASE_URL=cluster.url, VALID_API_KEYS=f"{STATIC_KEY}:org_1:premium")
    reply = gateway.get("/health/ready", key=None)
    assert (reply.status, reply.json()["checks"]["database"]) == (503, "unreachable")
    assert gateway.get("/health", key=None).json()["status"] == "degraded"
    assert gateway.get("/x").status == 200
    reply = gateway.get("/x", key=key)
    assert (reply.status, reply["Retry-After"]) == (503, "1")
    assert reply.json()["error"]["message"] == "authentication service temporarily unavailable"
    cluster.start()
    until(lambda: is_ready(gateway), "the gateway to get ready", 10)
    assert gateway.get("/x", key=key).status == 200


def test_a_database_that_goes_away(start: Start, cluster: Cluster) -> None:
    """Known keys keep working, unknown ones get 503 and not 403, readiness stays, and it all heals by itself."""
    known, unknown = new_key(cluster.url), new_key(cluster.url)
    gateway = start(DATABASE_URL=cluster.url)
    assert gateway.get("/x", key=known).status == 200
    cluster.kill()
    for _ in range(5):
        assert gateway.get("/x", key=known).status == 200
    reply = gateway.get("/x", key=unknown)
    assert (reply.status, reply["Retry-After"]) == (503, "1")
    until(lambda: gateway.get("/health", key=None).json()["status"] == "degraded", "the health to say so")
    assert is_ready(gateway)
    cluster.start()
    until(lambda: gateway.get("/x", key=unknown).status == 200, "the unknown key to be looked up", 10)


def test_a_redis_that_goes_away(start: Start, own_redis: RedisServer) -> None:
    """Without Redis every request is answered, limited locally; Redis decides again when it is back."""
    gateway = start(REDIS_URL=own_redis.url)
    until(lambda: gateway.get("/x").all("X-RateLimit-Mode") == [], "Redis to decide", 15)
    own_redis.kill()
    until(lambda: gateway.get("/x")["X-RateLimit-Mode"] == "local", "the local mode")
    assert all(gateway.get("/x").status == 200 for _ in range(10))
    assert is_ready(gateway)
    own_redis.start()
    until(lambda: gateway.get("/x").all("X-RateLimit-Mode") == [], "Redis to decide again", 15)


def test_it_ends_promptly_while_everything_is_away(start: Start, cluster: Cluster, own_redis: RedisServer) -> None:
    """SIGTERM with PostgreSQL and Redis frozen: the exit is still in time, and clean."""
    gateway = start(DATABASE_URL=cluster.url, REDIS_URL=own_redis.url, SHUTDOWN_TIMEOUT="1")
    cluster.freeze()
    own_redis.freeze()
    try:
        assert gateway.get("/health/live", key=None).status == 200
        assert gateway.stop(1 + 3 + 1) == 0
    finally:
        cluster.thaw()
        own_redis.thaw()


def test_closed_without_redis(start: Start) -> None:
    """RATE_LIMIT_FALLBACK=closed without Redis: 503, Retry-After, and the limits that every known caller is told."""
    gateway = start(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0", RATE_LIMIT_FALLBACK="closed", WEB_CONCURRENCY="1")
    replies = [gateway.get("/x") for _ in range(2)]
    for reply in replies:
        assert (reply.status, reply["Retry-After"], reply["X-RateLimit-Mode"]) == (503, "1", "closed")
        assert reply.json()["error"]["message"] == "rate limiting service temporarily unavailable"
        assert (reply["X-RateLimit-Limit-Minute"], reply["X-RateLimit-Remaining-Day"]) == ("1000", "100000")
