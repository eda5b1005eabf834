"""One scenario's time: load on, before, break, revoke, heal, after, load off."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.core.model import Limits
from tools.storm.load_process import LoadProcess
from tools.storm.observation import DOOMED, KNOWN, LIMITED, UNKNOWN, Moments, Observation
from tools.storm.plan import LoadPlan, Sample, Stream
from tools.storm.scenarios import Scenario
from tools.storm.stack import GATEWAYS, STATIC_KEY, WORKERS, Stack
from tools.storm.tenants import Tenant

BEFORE_SECONDS: Final = 3.0
AFTER_SECONDS: Final = 10.0
"""An open breaker looks every 6 s at the latest, a lost connection every 2 s, and workers wait for others."""
REVOKE_AFTER_SECONDS: Final = 1.0
LOAD_SECONDS_MAX: Final = 120.0
TICK_SECONDS: Final = 0.1
LIMITED_RATE: Final = 20.0
UNKNOWN_RATE: Final = 5.0
DOOMED_RATE: Final = 40.0
"""Resolves a revocation's delay to a fraction of a second on every one of four workers."""
PER_MINUTE: Final = 100
"""The limited stream has used more than half of it when the failure comes, and would exceed it twice by the end."""
UNLIMITED: Final = Limits(per_minute=100_000_000, per_day=2_000_000_000, burst=0)


@dataclass(frozen=True, slots=True)
class Tempo:
    """`rate` of the known key, requests a second; `seconds` that an outage lasts."""

    rate: float
    seconds: float

    @property
    def scenario_seconds(self) -> float:
        """About what a scenario takes, for the progress bar."""
        return BEFORE_SECONDS + self.seconds + AFTER_SECONDS


class Run:
    """Carries out scenarios on a stack. `on_tick` is called with the seconds that passed."""

    def __init__(self, stack: Stack, tempo: Tempo, on_tick: Callable[[float], None]) -> None:
        self._stack = stack
        self._tempo = tempo
        self._on_tick = on_tick

    def carry_out(self, scenario: Scenario) -> Observation:
        """Raises a ClickException when the stack does not do its part, as opposed to the gateways."""
        stack = self._stack
        stack.use(detour=scenario.is_detoured)
        known, limited, doomed = self._tenants()
        key = STATIC_KEY if scenario.starts_gateways else known.key
        plan = self._plan(key, limited, doomed)
        offsets = {gateway: gateway.output_bytes for gateway in stack.gateways}
        if scenario.deed is not None:
            samples, moments, noted = self._do(scenario, plan)
        elif scenario.starts_gateways:
            samples, moments, noted = self._start_broken(scenario, plan)
        else:
            samples, moments, noted = self._break(scenario, plan, doomed)
        told = sum((gateway.told_since(offset) for gateway, offset in offsets.items()), Counter())
        return Observation(samples, moments, PER_MINUTE, told, tuple(noted))

    def _tenants(self) -> tuple[Tenant, Tenant, Tenant]:
        limits = (UNLIMITED, Limits(PER_MINUTE, UNLIMITED.per_day, 0), UNLIMITED)
        known, limited, doomed = (self._stack.tenants.new(each) for each in limits)
        for tenant in (known, doomed):
            self._stack.tenants.warm(tenant, self._stack.ports, GATEWAYS * WORKERS)
        return known, limited, doomed

    def _plan(self, key: str, limited: Tenant, doomed: Tenant) -> LoadPlan:
        streams = (
            Stream(KNOWN, self._tempo.rate * 0.9, key, is_kept=True),
            Stream(KNOWN, self._tempo.rate * 0.1, key),
            Stream(UNKNOWN, UNKNOWN_RATE),
            Stream(LIMITED, LIMITED_RATE, limited.key),
            Stream(DOOMED, DOOMED_RATE, doomed.key),
        )
        return LoadPlan(self._stack.ports, "/api/users", LOAD_SECONDS_MAX, streams)

    def _break(self, scenario: Scenario, plan: LoadPlan, doomed: Tenant) -> tuple[list[Sample], Moments, list[str]]:
        if scenario.hurt is None:
            raise ValueError(f"{scenario.name} has nothing to do")
        revoked = None
        with LoadProcess(plan) as load:
            self._pass(BEFORE_SECONDS)
            with contextlib.ExitStack() as hurt:
                hurt.enter_context(scenario.hurt(self._stack))
                broke = time.monotonic()
                if scenario.revokes == "during":
                    self._pass(REVOKE_AFTER_SECONDS)
                    revoked = self._revoke(doomed)
                self._pass(broke + self._tempo.seconds - time.monotonic())
                healing = time.monotonic()
            healed = time.monotonic()
            if scenario.revokes == "after":
                self._pass(REVOKE_AFTER_SECONDS)
                revoked = self._revoke(doomed)
            self._pass(healed + AFTER_SECONDS - time.monotonic())
            ended = time.monotonic()
            return load.end(), Moments(broke, healing, healed, ended, revoked), []

    def _revoke(self, doomed: Tenant) -> float:
        began = time.monotonic()
        self._stack.tenants.revoke(doomed)
        return began

    def _start_broken(self, scenario: Scenario, plan: LoadPlan) -> tuple[list[Sample], Moments, list[str]]:
        if scenario.hurt is None:
            raise ValueError(f"{scenario.name} has nothing to do")
        self._stack.end_gateways()
        with contextlib.ExitStack() as hurt:
            hurt.enter_context(scenario.hurt(self._stack))
            self._stack.start_gateways()
            with LoadProcess(plan) as load:
                broke = time.monotonic()
                self._pass(self._tempo.seconds)
                healing = time.monotonic()
                hurt.close()
                healed = time.monotonic()
                self._pass(AFTER_SECONDS)
                ended = time.monotonic()
                return load.end(), Moments(broke, healing, healed, ended), []

    def _do(self, scenario: Scenario, plan: LoadPlan) -> tuple[list[Sample], Moments, list[str]]:
        if scenario.deed is None:
            raise ValueError(f"{scenario.name} has nothing to do")
        with LoadProcess(plan) as load:
            self._pass(BEFORE_SECONDS)
            broke = time.monotonic()
            wrong = scenario.deed(self._stack)
            healed = time.monotonic()
            self._on_tick(healed - broke)
            self._pass(BEFORE_SECONDS)
            ended = time.monotonic()
            return load.end(), Moments(broke, healed, healed, ended), wrong

    def _pass(self, seconds: float) -> None:
        """Lets the time pass, telling of it."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(TICK_SECONDS, left))
            self._on_tick(TICK_SECONDS)
