"""The programme: what is broken and healed, and what is promised meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Literal

from app.core.changes.feed import CHANNEL
from tools.storm import promises
from tools.storm.deeds import Deed, hang_a_worker, kill_a_worker, restart_one_by_one, stop_during_streams
from tools.storm.hog import all_taken
from tools.storm.stack import GATEWAYS, WORKERS, Stack

Hurt = Callable[[Stack], AbstractContextManager[None]]
"""Entered, the failure is there; left, it is healed."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table. `hurt` lasts as long as the user wants, `deed` (to processes) as long as it takes.

    `revokes`: when a key is revoked. `is_detoured`: the gateways' way to Redis is the detour. `starts_gateways`: they
    are started when everything is broken already, and the known key is a static one.
    """

    name: str
    text: str
    promises: Sequence[promises.Promise]
    hurt: Hurt | None = None
    deed: Deed | None = None
    revokes: Literal["during", "after", "never"] = "during"
    is_detoured: bool = False
    starts_gateways: bool = False


# --- Redis ---


@contextlib.contextmanager
def redis_killed(stack: Stack) -> Iterator[None]:
    stack.redis.kill()
    try:
        yield
    finally:
        stack.redis.start()


@contextlib.contextmanager
def redis_emptied(stack: Stack) -> Iterator[None]:
    stack.redis.kill()
    try:
        yield
    finally:
        stack.redis.restart_empty()


@contextlib.contextmanager
def redis_hung(stack: Stack) -> Iterator[None]:
    stack.redis.freeze()
    try:
        yield
    finally:
        stack.redis.thaw()


def redis_told(hurt: tuple[str, ...], heal: tuple[str, ...]) -> Hurt:
    """An operator's command, and the one that takes it back."""

    @contextlib.contextmanager
    def told(stack: Stack) -> Iterator[None]:
        stack.redis.command(*hurt)
        try:
            yield
        finally:
            stack.redis.command(*heal)

    return told


def redis_slow(seconds: float) -> Hurt:
    """Each way takes half of it."""

    @contextlib.contextmanager
    def slow(stack: Stack) -> Iterator[None]:
        stack.detour.delay_seconds = seconds / 2
        try:
            yield
        finally:
            stack.detour.delay_seconds = 0.0

    return slow


@contextlib.contextmanager
def subscriptions_cut(stack: Stack) -> Iterator[None]:
    """For good: the gateways have to find out and connect anew."""
    stack.detour.cut_silently(CHANNEL.encode())
    yield


# --- PostgreSQL ---


@contextlib.contextmanager
def postgres_killed(stack: Stack) -> Iterator[None]:
    stack.cluster.kill()
    try:
        yield
    finally:
        stack.cluster.start()


@contextlib.contextmanager
def postgres_hung(stack: Stack) -> Iterator[None]:
    stack.cluster.freeze()
    try:
        yield
    finally:
        stack.cluster.thaw()


@contextlib.contextmanager
def postgres_restarted(stack: Stack) -> Iterator[None]:
    """In good order, in the moment."""
    stack.cluster.stop()
    stack.cluster.start()
    yield


@contextlib.contextmanager
def postgres_full(stack: Stack) -> Iterator[None]:
    """All of its connections are somebody else's, those of the gateways included."""
    with all_taken(stack.cluster.url):
        yield


@contextlib.contextmanager
def both_killed(stack: Stack) -> Iterator[None]:
    with redis_killed(stack), postgres_killed(stack):
        yield


@contextlib.contextmanager
def both_hung(stack: Stack) -> Iterator[None]:
    with redis_hung(stack), postgres_hung(stack):
        yield


# --- what is promised ---

_LIMITS: Final = promises.limits_hold(GATEWAYS * WORKERS)
_ALWAYS: Final = (promises.known_keys_never_fail, promises.recovers, promises.log_is_bounded)
_REDIS: Final = (*_ALWAYS, promises.unknown_keys_get_403, _LIMITS, promises.revoked_within(5))
_NO_REDIS: Final = (*_REDIS, promises.adds_less_than(1), promises.local_is_signalled)
_NO_POSTGRES: Final = (*_ALWAYS, promises.unknown_keys_get_503_quickly, _LIMITS, promises.revoked_within(5))
_NEITHER: Final = (*_NO_POSTGRES, promises.adds_less_than(1), promises.local_is_signalled)
_PROCESSES: Final = (promises.own_notes, promises.unknown_keys_get_403, _LIMITS)
KILLED_LOST_MAX: Final = 5
"""What one of four workers has in its hands at a moment, at up to some thousand requests a second."""
HUNG_LOST_MAX: Final = 16
"""The kept connections of one worker, once each, and what it had accepted of others."""

PROGRAMME: Final = (
    Scenario("redis-killed", "Redis killed (SIGKILL), started again", _NO_REDIS, redis_killed),
    Scenario("redis-hung", "Redis hung (SIGSTOP)", _NO_REDIS, redis_hung),
    Scenario("redis-slow-30", "Redis answers after 30 ms", _REDIS, redis_slow(0.03), is_detoured=True),
    Scenario("redis-slow-200", "Redis answers after 200 ms", _NO_REDIS, redis_slow(0.2), is_detoured=True),
    Scenario("subscription-cut", "pub/sub connections cut silently", _REDIS, subscriptions_cut, is_detoured=True),
    Scenario(
        "redis-full",
        "Redis full (-OOM)",
        _NO_REDIS,
        redis_told(("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    ),
    Scenario(
        "redis-read-only",
        "Redis read-only (-READONLY)",
        _NO_REDIS,
        redis_told(("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    ),
    Scenario("redis-emptied", "Redis killed, started without its data", _NO_REDIS, redis_emptied),
    Scenario("postgres-killed", "PostgreSQL killed, started again", _NO_POSTGRES, postgres_killed, revokes="after"),
    Scenario("postgres-hung", "PostgreSQL hung (SIGSTOP)", _NO_POSTGRES, postgres_hung, revokes="after"),
    Scenario(
        "postgres-restarted",
        "PostgreSQL restarted",
        (*_ALWAYS, _LIMITS, promises.revoked_within(5)),
        postgres_restarted,
    ),
    Scenario("postgres-full", "PostgreSQL out of connections", _NO_POSTGRES, postgres_full, revokes="after"),
    Scenario("both-killed", "both killed, started again", _NEITHER, both_killed, revokes="after"),
    Scenario("both-hung", "both hung", _NEITHER, both_hung, revokes="after"),
    Scenario(
        "start-without-both",
        "gateways started before both",
        (*_ALWAYS, promises.unknown_keys_get_503_quickly, promises.local_is_signalled),
        both_killed,
        revokes="never",
        starts_gateways=True,
    ),
    Scenario(
        "rolling-restart",
        "gateways restarted one by one (SIGTERM)",
        (*_PROCESSES, promises.known_keys_never_fail),
        deed=restart_one_by_one,
        revokes="never",
    ),
    Scenario(
        "worker-killed",
        "one worker killed (SIGKILL)",
        (*_PROCESSES, promises.at_most_lost(KILLED_LOST_MAX)),
        deed=kill_a_worker,
        revokes="never",
    ),
    Scenario(
        "worker-hung",
        "one worker hung (SIGSTOP)",
        (*_PROCESSES, promises.at_most_lost(HUNG_LOST_MAX)),
        deed=hang_a_worker,
        revokes="never",
    ),
    Scenario(
        "stop-during-streams",
        "SIGTERM during a short and a long stream",
        (*_PROCESSES, promises.known_keys_never_fail),
        deed=stop_during_streams,
        revokes="never",
    ),
)
