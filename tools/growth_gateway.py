"""A gateway with very many keys in memory: throughput, memory, and its requests while the keys are read again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import click
import orjson

from tools import population
from tools.generator import Generator, fire, read_samples
from tools.installation import Installation, Target
from tools.memory import resident_bytes
from tools.plan import Outcome, Plan, percentile

CONNECTIONS: Final = 32
LOAD_SHARE: Final = 0.25
"""Of the maximum with random keys: what is sent while the refresh runs. On two processors this leaves room for the
database's part of a refresh and of the uses that are written; at half of it the worker alone is busy three quarters of
the time, and queues say more than pauses do."""
PROBE_KEYS: Final = 2_000
MEETINGS: Final = 5
"""Each key is sent so often before two workers are measured: 31 of 32 are then known to any one of them."""
FILL_SECONDS_MAX: Final = 1_800.0
JITTER_SHARE: Final = 0.1
"""A refresh may come so much sooner than its interval says (app/core/keys/refresher.py)."""
SLACK_SECONDS: Final = 10.0
"""For the processes that are started meanwhile: a second or two, five on a busy machine."""
POLL_SECONDS: Final = 0.2
OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class GatewayFigures:
    """One worker. `quiet` and `refreshing` are p99 latencies of the same run, outside of the refresh and during it."""

    keys: int
    one_key_per_second: float
    fill_per_second: float
    random_keys_per_second: float
    bytes_per_key: float
    refreshed: int
    refresh_seconds: float
    rate: float
    quiet_p99_ms: float
    refreshing_p99_ms: float


@dataclass(frozen=True, slots=True)
class Refresh:
    """What a gateway's log said of one: keys read again, its end (unix seconds), how long it took."""

    keys: int
    ended: float
    seconds: float


class Growth:
    """Measures gateways of one installation whose database holds the population's keys 0 to `keys`."""

    def __init__(self, found: Installation, keys: int, seconds: float, on_step: OnStep) -> None:
        self._found = found
        self._keys = keys
        self._seconds = seconds
        self._on_step = on_step

    def one_worker(self) -> GatewayFigures:
        """Raises a ClickException when requests fail, or when the machine is too busy for the plan to work out."""
        first_key = population.key(0).decode()
        with self._found.gateway(first_key) as target:
            self._on_step("one key")
            one_key = self._fire(self._plan(target, population=0))
            fill_seconds = self._keys / self._fill(target, min(PROBE_KEYS, self._keys)).per_second
        # long enough that the refresh comes once all keys are in memory and the maximum is known
        ttl_seconds = (1.5 * fill_seconds + 3 * self._seconds + SLACK_SECONDS) / (1 - JITTER_SHARE)
        with self._found.gateway(first_key, API_KEY_CACHE_TTL=f"{ttl_seconds:.0f}") as target:
            return self._grown(target, one_key.per_second, fill_seconds, ttl_seconds)

    def _grown(self, target: Target, one_key: float, fill_seconds: float, ttl_seconds: float) -> GatewayFigures:
        self._on_step(f"{self._keys:,} keys through requests, about {fill_seconds:.0f} s")
        worker, met = target.worker_pids[0], min(PROBE_KEYS, self._keys // 2)
        self._fill(target, met)  # what a worker takes for its first requests is no key's memory
        before = resident_bytes(worker)
        fill = self._fill(target, self._keys)
        grown = resident_bytes(worker) - before
        self._on_step("random keys")
        maximum = self._fire(self._plan(target)).per_second
        if refreshes(target.log):
            raise click.ClickException("a refresh came too early: the machine is busy with something else")
        refresh, quiet, refreshing = self._refresh(target, maximum * LOAD_SHARE, ttl_seconds)
        return GatewayFigures(
            self._keys,
            one_key_per_second=one_key,
            fill_per_second=fill.per_second,
            random_keys_per_second=maximum,
            bytes_per_key=grown / (self._keys - met),
            refreshed=refresh.keys,
            refresh_seconds=refresh.seconds,
            rate=maximum * LOAD_SHARE,
            quiet_p99_ms=quiet * 1000,
            refreshing_p99_ms=refreshing * 1000,
        )

    def workers(self, count: int) -> float:
        """Requests a second of a gateway with so many workers, with random keys that nearly all of them have met."""
        self._on_step(f"workers: {count}")
        keys = min(self._keys, PROBE_KEYS)
        with self._found.gateway(population.key(0).decode(), workers=count) as target:
            for _ in range(MEETINGS):
                self._fill(target, keys)
            return self._fire(self._plan(target, population=keys)).per_second

    def _plan(self, target: Target, population: int | None = None) -> Plan:
        return Plan(
            target.url,
            target.key,
            CONNECTIONS,
            self._seconds,
            warm_seconds=min(1.0, self._seconds / 4),
            population=self._keys if population is None else population,
        )

    def _fill(self, target: Target, keys: int) -> Outcome:
        plan = Plan(target.url, None, CONNECTIONS, FILL_SECONDS_MAX, population=keys, order="once")
        return self._fire(plan)

    def _fire(self, plan: Plan) -> Outcome:
        return _unfailing(fire(plan))

    def _refresh(self, target: Target, rate: float, ttl_seconds: float) -> tuple[Refresh, float, float]:
        """Requests at `rate` until a refresh is over: the refresh, p99 outside and during it, in seconds."""
        self._on_step(f"{rate:.0f} requests/s until a refresh is over, about {ttl_seconds:.0f} s at most")
        samples = target.log.with_name("samples")
        longest_seconds = ttl_seconds + FILL_SECONDS_MAX
        plan = replace(self._plan(target), rate=rate, seconds=longest_seconds, samples=str(samples))
        with Generator(plan) as generator:
            refresh = _await_refresh(target.log, longest_seconds)
            generator.stop()
            _unfailing(generator.wait())
        quiet, refreshing = split(*read_samples(samples), refresh)
        return refresh, percentile(sorted(quiet), 0.99), percentile(sorted(refreshing), 0.99)


def split(starts: Sequence[float], latencies: Sequence[float], refresh: Refresh) -> tuple[list[float], list[float]]:
    """The latencies of requests that no part of the refresh met, and of those it did (starts are unix seconds)."""
    quiet: list[float] = []
    refreshing: list[float] = []
    for start, latency in zip(starts, latencies, strict=True):
        met = start < refresh.ended and start + latency > refresh.ended - refresh.seconds
        (refreshing if met else quiet).append(latency)
    return quiet, refreshing


def refreshes(log: Path) -> list[Refresh]:
    """Every refresh that a gateway's log tells of."""
    with log.open("rb") as lines:
        return [refresh for line in lines if b"[RefreshManager] Refreshed" in line and (refresh := _parse(line))]


def _parse(line: bytes) -> Refresh | None:
    entry = orjson.loads(line)
    found = re.search(r"Refreshed (\d+) API keys in (\d+)ms", entry["message"])
    if found is None:
        return None
    ended = datetime.fromisoformat(entry["timestamp"]).timestamp()
    return Refresh(int(found.group(1)), ended, int(found.group(2)) / 1000)


def _await_refresh(log: Path, seconds: float) -> Refresh:
    deadline = time.monotonic() + seconds
    log.write_bytes(b"")  # appended to: what follows is this run's, and reading it again and again stays cheap
    while time.monotonic() < deadline:
        if found := refreshes(log):
            return found[-1]
        time.sleep(POLL_SECONDS)
    raise click.ClickException("no refresh came; the gateway's log has more")


def _unfailing(outcome: Outcome) -> Outcome:
    if outcome.errors or not outcome.answers:
        raise click.ClickException(f"requests failed: {outcome.errors or 'none was answered'}")
    return outcome
