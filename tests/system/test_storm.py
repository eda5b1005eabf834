"""Clients of a real gateway under a steady load while Redis, PostgreSQL or both fail: what they must not notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from db.migrate import migrate
from tests.backend import Backend
from tests.conftest import NO_FSYNC
from tests.gateway import STATIC_KEY, Gateway, until
from tests.system.storm import UNLIMITED, WORKERS, Storm, calm_balance
from tools.cluster import Cluster
from tools.embedded import RedisServer
from tools.storm import promises
from tools.storm.detour import Detour
from tools.storm.hog import all_taken
from tools.storm.observation import DOOMED, UNKNOWN, Observation
from tools.storm.tenants import Tenant, Tenants

Start = Callable[..., Gateway]
REVOKED_SECONDS = 5
WAITED_MS_MAX = 25
"""Half of what a request waits for Redis before it is known to be away. (The decision itself: test_limiter_outage.)"""
LINES_A_WORKER_MAX = 12
"""Of a whole outage, of whatever length: each part that notices says so once, and once that it is over."""


@dataclass(frozen=True)
class Place:
    """A gateway of two workers, what it depends on, and the detour that is its way to Redis."""

    gateway: Gateway
    cluster: Cluster
    redis: RedisServer
    detour: Detour
    tenants: Tenants
    known: Tenant
    calm: int

    def storm(self) -> Storm:
        return Storm(self.gateway, self.tenants, self.known, self.calm)


@pytest.fixture(scope="module")
def place(short_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests of this module: each of them heals what it hurts, and begins when the gateway has recovered."""
    with (
        Cluster(short_folder / "pg-storm") as cluster,
        RedisServer(short_folder / "redis-storm", None, *NO_FSYNC) as redis,
        Detour(redis.port) as detour,
        Backend() as backend,
    ):
        migrate(cluster.url)
        tenants = Tenants(cluster.url, redis.port)
        known = tenants.new(UNLIMITED)
        environment = {
            "BACKEND_URLS": f"api={backend.url}",
            "DATABASE_URL": cluster.url,
            "REDIS_URL": f"redis://127.0.0.1:{detour.port}/0",
            "TRUSTED_PROXIES": "127.0.0.1",  # strangers come from addresses of their own
            "WEB_CONCURRENCY": str(WORKERS),
        }
        with Gateway(tmp_path_factory.mktemp("storm"), environment) as gateway:
            yield Place(gateway, cluster, redis, detour, tenants, known, calm_balance(gateway))


def keep(seen: Observation, *wanted: promises.Promise) -> None:
    """All of them, and those that hold in every outage."""
    checks = [each(seen) for each in (promises.known_keys_never_fail, promises.limits_hold(WORKERS), *wanted)]
    assert not [check for check in checks if not check.is_kept]
    assert seen.told.total() <= WORKERS * LINES_A_WORKER_MAX, seen.told


Failure = Callable[[Place], AbstractContextManager[None]]
"""Entered, it is there; left, it is healed."""


@contextmanager
def redis_killed_and_emptied(place: Place) -> Iterator[None]:
    place.redis.kill()
    try:
        yield
    finally:
        place.redis.restart_empty()


@contextmanager
def redis_hung(place: Place) -> Iterator[None]:
    place.redis.freeze()
    try:
        yield
    finally:
        place.redis.thaw()


@contextmanager
def redis_slow(place: Place) -> Iterator[None]:
    place.detour.delay_seconds = 0.1
    try:
        yield
    finally:
        place.detour.delay_seconds = 0.0


@contextmanager
def redis_full(place: Place) -> Iterator[None]:
    place.redis.command("CONFIG", "SET", "maxmemory", "1")
    try:
        yield
    finally:
        place.redis.command("CONFIG", "SET", "maxmemory", "0")


@contextmanager
def redis_read_only(place: Place) -> Iterator[None]:
    place.redis.command("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        place.redis.command("REPLICAOF", "NO", "ONE")


@pytest.mark.parametrize(
    "failure", [redis_killed_and_emptied, redis_hung, redis_slow, redis_full, redis_read_only], ids=lambda f: f.__name__
)
def test_redis_fails(place: Place, failure: Failure) -> None:
    """Redis fails under load: no error, local limits that are announced, no wait for it, revocations in time, a line
    from each part in the log; and afterwards nobody has a second quota."""
    with place.storm() as storm:
        with failure(place):
            storm.broken()
            storm.revoke()
            storm.lasting()
        storm.healed()
        seen = storm.seen()
    keep(
        seen,
        promises.adds_less_than(WAITED_MS_MAX),
        promises.local_is_signalled,
        promises.unknown_keys_get_403,
        promises.revoked_within(REVOKED_SECONDS),
        promises.recovers,
    )
    assert seen.answers(DOOMED)["403"]
    assert [line for line in seen.told if line.startswith("Rate limits: deciding without Redis (")]


def test_subscription_is_cut_silently(place: Place) -> None:
    """A pub/sub connection that carries nothing any more, and says nothing of it: a revocation holds in time."""
    with place.storm() as storm:
        place.detour.cut_silently(b"gateway:changes")
        storm.broken(0.1)
        storm.revoke()
        until(lambda: storm.told["Redis connection changes is up again"] >= WORKERS, "new subscriptions", 8)
        storm.healed()
        seen = storm.seen()
    keep(seen, promises.revoked_within(REVOKED_SECONDS), promises.unknown_keys_get_403)
    assert seen.answers(DOOMED)["403"]


@contextmanager
def postgres_hung(place: Place) -> Iterator[None]:
    place.cluster.freeze()
    try:
        yield
    finally:
        place.cluster.thaw()


@contextmanager
def postgres_full(place: Place) -> Iterator[None]:
    with all_taken(place.cluster.url):
        yield


@contextmanager
def both_killed(place: Place) -> Iterator[None]:
    place.redis.kill()
    place.cluster.kill()
    try:
        yield
    finally:
        place.cluster.start()
        place.redis.start()


@pytest.mark.parametrize("failure", [postgres_hung, postgres_full, both_killed], ids=lambda f: f.__name__)
def test_postgres_fails(place: Place, failure: Failure) -> None:
    """PostgreSQL fails under load, alone or with Redis: known keys go on, unknown ones get 503 in milliseconds (one a
    second waits for an answer, less than a second), and all is as before without anyone's help."""
    with place.storm() as storm:
        with failure(place):
            storm.broken()
            storm.lasting()
        storm.healed(then=storm.revoke)
        seen = storm.seen()
    keep(seen, promises.unknown_keys_get_503_quickly, promises.recovers, promises.revoked_within(REVOKED_SECONDS))
    assert seen.answers(DOOMED)["403"]


def test_postgres_restarts(place: Place) -> None:
    """A restart of PostgreSQL under load is no event for known keys, and a revocation right after it holds in time."""
    with place.storm() as storm:
        storm.broken(0)
        place.cluster.stop()
        place.cluster.start()
        storm.lasting()  # it takes a quarter of a second, and a second more until all have noticed
        storm.healed(then=storm.revoke)
        seen = storm.seen()
    keep(seen, promises.recovers, promises.revoked_within(REVOKED_SECONDS))
    assert set(seen.answers(UNKNOWN)) <= {"403", "503"}


def test_both_arrive_after_the_gateway(start: Start, place: Place) -> None:
    """Started with neither: static keys are served by local limits, others get 503; each is used once it is there."""
    tenant = place.tenants.new(UNLIMITED)
    environment = {**place.gateway.environment, "VALID_API_KEYS": f"{STATIC_KEY}:org_1:premium"}
    with ExitStack() as healing:
        place.cluster.stop()
        healing.callback(place.cluster.start)
        place.redis.kill()
        healing.callback(place.redis.start)
        own = ("DATABASE_URL", "REDIS_URL", "WEB_CONCURRENCY", "VALID_API_KEYS")
        gateway = start(**{name: environment[name] for name in own})
        reply = gateway.get("/x")
        assert (reply.status, reply["X-RateLimit-Mode"]) == (200, "local")
        assert {gateway.get("/x", key=tenant.key).status for _ in range(8)} == {503}
    until(lambda: not any(gateway.get("/x").all("X-RateLimit-Mode") for _ in range(4)), "Redis to decide", 15)
    until(lambda: gateway.get("/health/ready", key=None).status == 200, "the gateway to be ready", 10)
    until(lambda: {gateway.get("/x", key=tenant.key).status for _ in range(8)} == {200}, "the key to be known", 5)
    assert gateway.stop() == 0  # in good order: nobody of the next test waits for its workers
