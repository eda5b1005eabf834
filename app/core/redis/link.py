"""The one way to Redis: a supervised connection whose state is always known and which no caller ever waits for.

coredis's pool connects on demand, leaks slots when callers are cancelled and sends commands a second time after a
time-out, which counts a request twice. So only its reading and writing of RESP3 is used here (wire.py).
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, Self, cast

from loguru import logger

from app.core.model import RedisAddress
from app.core.redis.refusals import RedisRefusal, RedisUnavailable
from app.core.redis.translation import root
from app.core.redis.wire import Answers, Command, RedisWire, Then

__all__ = ["Command", "RedisLink", "RedisRefusal", "RedisUnavailable", "Subscribed"]

HANDSHAKE_SECONDS: Final = 1.0
"""Bounds connecting and HELLO together: a server may accept and stay silent."""
PAUSE_SECONDS_MIN: Final = 0.1
PAUSE_SECONDS_MAX: Final = 2.0
STABLE_SECONDS: Final = 1.0
"""A connection that lived this long is replaced without a pause; a shorter life counts as one more failed attempt."""
PING_PAUSE_SECONDS: Final = 2.0
PING_SECONDS: Final = 1.0


class Subscribed:
    """The subscription stands (again). What was published before this moment, since the last message, is lost."""


class RedisLink:
    """One connection to Redis; an async context manager that returns at once and connects in the background, for ever.

    `name` is shown by CLIENT LIST and in the log (no spaces). `is_up` says whether commands can be sent now,
    `last_error` why the last connection failed or ended. A PING every 2 s finds a peer that died silently. Each of
    `on_lost` is called with the reason when a connection has ended, before there is another one.
    """

    def __init__(self, address: RedisAddress, *, name: str, jitter: Callable[[], float] = random.random) -> None:
        self.name = name
        self.last_error: str | None = None
        self.on_lost: list[Callable[[str], None]] = []
        self._address = address
        self._jitter = jitter
        self._tls = _tls_context(address.verify) if address.tls else None
        self._wire: RedisWire | None = None
        self._up = asyncio.Event()
        self._closed = False
        self._reported_down = False
        self._supervisor: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._supervisor = asyncio.create_task(self._supervise(), name=f"redis-link-{self.name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)

    @property
    def is_up(self) -> bool:
        return self._wire is not None and self._wire.is_open

    async def wait_up(self, timeout_seconds: float | None = None) -> bool:
        """Returns True once commands can be sent, False when that took longer than `timeout_seconds`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._usable_wire(), timeout_seconds)
        return self.is_up

    async def run(self, commands: Sequence[Command], timeout_seconds: float) -> list[Any]:
        """Sends `commands` in one write and returns their answers in order (bytes, int, list, dict, None).

        A command that Redis refused has a RedisRefusal in its place, one whose answer was cut off a RedisUnavailable.
        Raises RedisUnavailable, without waiting when not connected, if no command was answered. After a time-out the
        connection is replaced, so a late answer cannot be taken for another's. Cancelling a caller harms no other.
        """
        answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.begin(commands, timeout_seconds, partial(_settle, answered))
        return await answered

    def begin(self, commands: Sequence[Command], timeout_seconds: float, then: Then) -> None:
        """`run` for who is called back: at once when there is no connection, else as soon as the answers are here."""
        wire = self._wire
        if wire is None:
            then(RedisUnavailable(self.last_error or "not connected yet", sent=False))
        else:
            wire.begin(commands, timeout_seconds, then)

    async def listen(self, channel: str) -> AsyncGenerator[bytes | Subscribed, None]:
        """Yields what is published on `channel`, for ever, over every loss of the connection; one channel a link.

        A `Subscribed` comes first and after each reconnection: messages in the gap are lost, so catch up then.
        Leave the iterator with `contextlib.aclosing`, and be quick: a listener that falls behind is cut off.
        """
        while True:
            wire = await self._usable_wire()
            wire.subscribe(channel)
            while (push := await wire.pushes.get()) is not None:
                if push[0] == b"message":
                    yield cast("bytes", push[2])
                elif push[0] == b"subscribe":
                    yield Subscribed()

    async def _usable_wire(self) -> RedisWire:
        while self._wire is None or not self._wire.is_open:
            self._up.clear()
            await self._up.wait()
        return self._wire

    def reset(self, reason: str) -> None:
        """Replaces the connection, for a server that answers but is the wrong one (READONLY after a failover)."""
        if self._wire is not None:
            self._wire.drop(reason)

    async def _supervise(self) -> None:
        failures = 0
        while not self._closed:
            began = time.monotonic()
            await self._connect_and_stay()
            failures = 0 if time.monotonic() - began > HANDSHAKE_SECONDS + STABLE_SECONDS else failures + 1
            if failures and not self._closed:
                pause = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN * 2.0 ** min(failures - 1, 10))
                await asyncio.sleep(pause * (0.5 + self._jitter() / 2))

    async def _connect_and_stay(self) -> None:
        """Returns when the attempt failed or the connection has ended; `last_error` says why."""
        wire: RedisWire | None = None
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                wire = await self._connect()
                await self._greet(wire)
            self._went_up(wire)
            await self._ping_until_ended(wire)
            self._lost(wire)
        except TimeoutError:
            self._went_down("the server is silent")
        except (RedisRefusal, RedisUnavailable, OSError) as failure:
            self._went_down(root(failure))
        finally:
            self._wire = None
            if wire is not None:
                wire.drop("closed")

    async def _connect(self) -> RedisWire:
        loop, address = asyncio.get_running_loop(), self._address
        if address.path is not None:
            _, wire = await loop.create_unix_connection(_protocol, address.path)
        else:
            _, wire = await loop.create_connection(_protocol, address.host, address.port, ssl=self._tls)
        return cast("RedisWire", wire)

    async def _greet(self, wire: RedisWire) -> None:
        """HELLO 3 with the password, the name for CLIENT LIST, and the database. Raises RedisRefusal."""
        address = self._address
        hello: tuple[bytes | str | int, ...] = (b"HELLO", 3)
        if address.password is not None or address.username is not None:
            hello += (b"AUTH", address.username or "default", address.password or "")
        commands: list[Command] = [(*hello, b"SETNAME", self.name), (b"SELECT", address.db)]
        answered: asyncio.Future[list[Any]] = wire.loop.create_future()
        wire.begin(commands, HANDSHAKE_SECONDS, partial(_settle, answered))
        for answer in await answered:
            if isinstance(answer, RedisRefusal):
                raise RedisRefusal(answer.code, self._without_password(answer.text))
            if isinstance(answer, Exception):
                raise answer

    def _without_password(self, text: str) -> str:
        # A server older than HELLO repeats the beginning of what it did not understand, wherever it cuts it off.
        said = text.partition(", with args")[0]
        return said.replace(self._address.password, "***") if self._address.password else said

    async def _ping_until_ended(self, wire: RedisWire) -> None:
        """A PING now and then finds a peer that died silently."""
        while True:
            await asyncio.wait({wire.ended}, timeout=PING_PAUSE_SECONDS)
            if wire.ended.done():
                return
            try:
                await self.run([(b"PING",)], PING_SECONDS)
            except RedisUnavailable:
                wire.was_dropped = False  # no caller's finding but ours, so ours to tell

    def _went_up(self, wire: RedisWire) -> None:
        self._wire = wire
        self.last_error = None
        self._up.set()
        if self._reported_down:
            self._reported_down = False
            logger.info("Redis connection {} is up again", self.name)

    def _lost(self, wire: RedisWire) -> None:
        reason = wire.reason or "connection lost"
        if wire.was_dropped:  # whoever dropped it tells of that; it is down if there will be no other one
            self.last_error = reason
        else:
            self._went_down(reason)
        for call in self.on_lost:
            call(reason)

    def _went_down(self, reason: str) -> None:
        self.last_error = reason
        if not self._reported_down and not self._closed:
            self._reported_down = True
            logger.warning("Redis connection {} is down: {}", self.name, reason)


def _settle(answered: asyncio.Future[list[Any]], answers: Answers) -> None:
    if answered.done():
        return
    if isinstance(answers, RedisUnavailable):
        answered.set_exception(answers)
    else:
        answered.set_result(answers)


def _protocol() -> asyncio.Protocol:
    return cast("asyncio.Protocol", RedisWire())


def _tls_context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
