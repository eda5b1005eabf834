"""A steady load on one gateway while what it depends on is hurt, and what that load saw."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, Self

from app.core.model import Limits
from tests.gateway import Gateway, until
from tools.storm.load_process import LoadProcess
from tools.storm.observation import DOOMED, KNOWN, LIMITED, UNKNOWN, Moments, Observation
from tools.storm.plan import LoadPlan, Stream
from tools.storm.tenants import Tenant, Tenants

WORKERS: Final = 2
PER_MINUTE: Final = 40
UNLIMITED: Final = Limits(1_000_000, 10_000_000, 0)
STREAM_SECONDS_MAX: Final = 60.0
BEFORE_SECONDS: Final = 0.5
NOTICED_SECONDS: Final = 1.0
HURT_SECONDS: Final = 2.0
"""The first half of an outage is for noticing it; what is promised of it is looked for in the second."""
AFTER_SECONDS: Final = 3.0
"""More than an Observation wants to see undisturbed at the end, also after one more late answer of Redis."""
AWAY_LINES: Final = ("PostgreSQL is away: ", "Rate limits: deciding without Redis ")
BACK_LINES: Final = ("✅ Connected to PostgreSQL", "✅ Connected to Redis", "Rate limits: Redis decides again ")


class Storm:
    """From entering, requests come all the time: with a known key, unknown ones, one over its limit, a doomed one.

    The gateway has WORKERS workers, and `known` is older than its last look into the journal of changes: what has just
    changed is not relied on until it was read again. Then `broken`, perhaps `revoke` and `lasting`, `healed`, and
    `seen` at last. `calm` is the gateway's `calm_balance`.
    """

    def __init__(self, gateway: Gateway, tenants: Tenants, known: Tenant, calm: int) -> None:
        self._gateway = gateway
        self._tenants = tenants
        self._known = known
        self._calm = calm
        self._stack = contextlib.ExitStack()
        self._revoked: float | None = None

    def __enter__(self) -> Self:
        self._wait_recovered()
        limited = self._tenants.new(Limits(PER_MINUTE, 1_000_000, 0))
        self._doomed = self._tenants.new(UNLIMITED)
        for tenant in (self._known, self._doomed):
            self._tenants.warm(tenant, (self._gateway.port,), WORKERS)
        streams = (
            Stream(KNOWN, 80, self._known.key, is_kept=True),
            Stream(UNKNOWN, 20),
            Stream(LIMITED, 20, limited.key),
            Stream(DOOMED, 20, self._doomed.key),
        )
        plan = LoadPlan((self._gateway.port,), "/api/users", STREAM_SECONDS_MAX, streams)
        self._load = self._stack.enter_context(LoadProcess(plan))
        time.sleep(BEFORE_SECONDS)  # how it is when nothing is wrong
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def broken(self, seconds: float = NOTICED_SECONDS) -> None:
        """What fails has just failed; returns when that has lasted for `seconds`."""
        self._broke = time.monotonic()
        self._told_before = messages(self._gateway)
        time.sleep(seconds)
        self._healing = time.monotonic()

    def lasting(self) -> None:
        """Returns when the failure has lasted for another while."""
        time.sleep(HURT_SECONDS)
        self._healing = time.monotonic()

    def revoke(self) -> None:
        self._revoked = time.monotonic()
        self._tenants.revoke(self._doomed)

    def healed(self, then: Callable[[], None] = lambda: None) -> None:
        """What failed has just been healed; returns a while after all workers have noticed and `then` was called."""
        self._healed = time.monotonic()
        self._wait_recovered()
        then()
        time.sleep(AFTER_SECONDS)  # how it is afterwards

    def _wait_recovered(self) -> None:
        until(self._has_recovered, "every worker to have told that it is back", 20)

    def _has_recovered(self) -> bool:
        """By the log: /health is answered by one worker, and always by the same while there is little to do."""
        is_healthy = self._gateway.get("/health", key=None).json()["status"] == "healthy"
        return is_healthy and balance(self._gateway) == self._calm

    def seen(self) -> Observation:
        ended = time.monotonic()
        moments = Moments(self._broke, self._healing, self._healed, ended, self._revoked)
        return Observation(self._load.end(), moments, PER_MINUTE, self.told)

    @property
    def told(self) -> Counter[str]:
        """What the gateway said since it broke, with how often."""
        return messages(self._gateway) - self._told_before


def messages(gateway: Gateway) -> Counter[str]:
    return Counter(line["message"] for line in gateway.log() if "message" in line)


def balance(gateway: Gateway) -> int:
    """How many more returns than outages its log has told of: as many as in calm times when all are over."""
    told = messages(gateway)
    away, back = (sum(told[text] for text in told if text.startswith(lines)) for lines in (AWAY_LINES, BACK_LINES))
    return back - away


def calm_balance(gateway: Gateway) -> int:
    """The balance once all workers have started and met PostgreSQL and Redis."""

    def have_met() -> bool:
        told = messages(gateway)
        return all(sum(told[text] for text in told if text.startswith(line)) >= WORKERS for line in BACK_LINES[:2])

    until(have_met, "all workers to meet PostgreSQL and Redis")
    return balance(gateway)
