"""How soon a change made through the admin app is in force at the gateways, all of them processes as in production."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.gateway import Gateway, Reply
from tests.system.fleet import WORKERS, Fleet, Tenant, made
from tools.embedded import RedisServer

TOLD_SECONDS: Final = 1.0
UNTOLD_SECONDS: Final = 5.0
MARGIN_SECONDS: Final = 0.5
"""How much longer the watchers look than a change may take: an old answer in there would show that it took longer."""
LOOK_PAUSE_SECONDS: Final = 0.04
IsNew = Callable[[Reply], bool]


@dataclass(frozen=True, slots=True)
class Case:
    """The request that changes something of a tenant on `tier`, and what a gateway's answers are like after it."""

    tier: str
    method: str
    path: str
    body: dict[str, Any]
    is_new: IsNew


def refused(text: str) -> IsNew:
    return lambda reply: reply.status == 403 and reply.json()["error"]["message"] == text


def limit_above(number: int) -> IsNew:
    """Also while Redis is away, when the header says a worker's share."""
    return lambda reply: int(reply["X-RateLimit-Limit-Minute"]) > number


KEY, ORGANIZATION = "/v1/keys/{0.key[id]}", "/v1/organizations/{0.id}"
MANY: Final = {"per_minute": 100_000, "per_day": 1_000_000, "burst": 0}
CASES: Final = {
    "revoke": Case("premium", "POST", f"{KEY}/revoke", {"reason": "leaked"}, refused("API key has been revoked")),
    "rotate": Case("premium", "POST", f"{KEY}/rotate", {"overlap_seconds": 0}, refused("API key has expired")),
    "tier": Case("basic", "PATCH", ORGANIZATION, {"tier": "premium"}, limit_above(100)),
    "limits": Case("premium", "PUT", f"{ORGANIZATION}/limits", MANY, limit_above(1_000)),
    "deactivate": Case("premium", "PATCH", ORGANIZATION, {"active": False}, refused("organization is inactive")),
}


@pytest.fixture
def fleet(tmp_path: Path, database_url: str, own_redis: RedisServer) -> Iterator[Fleet]:
    with Fleet(tmp_path, database_url, own_redis) as fleet:
        yield fleet


class Watcher:
    """Asks one gateway with one key again and again: when it sent the last request that was answered as before."""

    def __init__(self, gateway: Gateway, key: str, is_new: IsNew) -> None:
        self._gateway = gateway
        self._key = key
        self._is_new = is_new
        self.last_old_at = 0.0
        self.has_new = False

    def watch(self, start: threading.Barrier, seconds: float) -> None:
        start.wait(10)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            asked_at = time.monotonic()
            if self._is_new(self._gateway.get("/api/x", key=self._key)):
                self.has_new = True
            else:
                self.last_old_at = asked_at
            time.sleep(LOOK_PAUSE_SECONDS)  # a client's pause between two requests


class Trial:
    """One change, with a watcher at each gateway."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.case = CASES[name]
        self.tenant = Tenant(fleet.admin, self.case.tier)
        self.watchers = [Watcher(gateway, self.tenant.secret, self.case.is_new) for gateway in fleet.gateways]
        self.sent_at = 0.0

    def change(self, admin: httpx.Client) -> httpx.Response:
        self.sent_at = time.monotonic()
        return admin.request(self.case.method, self.case.path.format(self.tenant), json=self.case.body)

    @property
    def seconds(self) -> list[float]:
        """From sending the change to the last request answered as before it, at each gateway."""
        assert all(watcher.has_new for watcher in self.watchers)
        return [watcher.last_old_at - self.sent_at for watcher in self.watchers]


def run(fleet: Fleet, trials: dict[str, Trial], bound_seconds: float) -> dict[str, httpx.Response]:
    """Makes all the changes while every watcher looks; returns the admin app's answers."""
    watchers = [watcher for trial in trials.values() for watcher in trial.watchers]
    start = threading.Barrier(len(watchers) + 1)
    with ThreadPoolExecutor(len(watchers)) as pool:
        running = [pool.submit(watcher.watch, start, bound_seconds + MARGIN_SECONDS) for watcher in watchers]
        start.wait(10)
        answers = {name: trial.change(fleet.admin) for name, trial in trials.items()}
        for each in running:
            each.result()
    return answers


def test_with_redis(fleet: Fleet) -> None:
    """With Redis every change is in force in every worker of both gateways within a second, and the answer says so."""
    for name in CASES:
        trial = Trial(fleet, name)
        fleet.warm(trial.tenant.secret)
        answer = run(fleet, {name: trial}, TOLD_SECONDS)[name]
        assert made(answer)["heard_by"] == WORKERS
        assert max(trial.seconds) < TOLD_SECONDS, name


def test_with_redis_killed(fleet: Fleet) -> None:
    """Without Redis every change is in force in every worker of both gateways within five seconds, unaided."""
    trials = {name: Trial(fleet, name) for name in CASES}
    for trial in trials.values():
        fleet.warm(trial.tenant.secret)
    fleet.redis.kill()
    answers = run(fleet, trials, UNTOLD_SECONDS)
    for name, trial in trials.items():
        assert made(answers[name])["heard_by"] is None
        assert max(trial.seconds) < UNTOLD_SECONDS, name


def test_a_rotation_overlaps(fleet: Fleet) -> None:
    """A rotated key and its successor both work during the overlap, at both gateways and at once."""
    tenant = Tenant(fleet.admin, "premium")
    fleet.warm(tenant.secret)
    successor = made(fleet.admin.post(f"/v1/keys/{tenant.key['id']}/rotate", json={"overlap_seconds": 3600}))
    for gateway in fleet.gateways:
        assert [gateway.get("/api/x", key=key).status for key in (tenant.secret, successor["api_key"])] == [200, 200]
    assert successor["replaces"]["id"] == tenant.key["id"]
    assert successor["replaces"]["expires_at"] is not None
