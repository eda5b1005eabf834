"""The open tunnels of a worker, and what ends them from this side: silence, a key that became invalid, the drain."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final, Self

from loguru import logger

from app.core.errors import AuthenticationUnavailable, GatewayError, UnknownKey
from app.core.keys import credential
from app.core.keys.keyring import UNKNOWN, Found, KeyRing
from app.core.relay.frames import GOING_AWAY, POLICY_VIOLATION
from app.core.relay.tunnel import Tunnel

LOOK_SECONDS: Final = 0.4
"""Between two looks at every tunnel. A key's change reaches the key ring first, within moments while Redis is there; a
request would be refused then, and a tunnel ends with the next look: within the second that is promised for both."""
LOOKS_AT_ONCE: Final = 500
"""About a millisecond; then other work has its turn."""
READS_AT_ONCE: Final = 16
"""Keys read from the database at a time. After a flush every key is in doubt, and requests come first."""


@dataclass(frozen=True, slots=True)
class _Open:
    tunnel: Tunnel
    key: bytes = field(repr=False)
    request_id: str


class Tunnels:
    """An async context manager. How many there may be is not limited here: each is a connection of its client, and one
    to its backend, and those are."""

    def __init__(self, ring: KeyRing, idle_seconds: float) -> None:
        self._ring = ring
        self._idle_seconds = idle_seconds
        self._open: dict[Tunnel, _Open] = {}
        self._is_draining = False
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._watch = asyncio.create_task(self._look_again_and_again(), name="tunnels")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._open)

    def add(self, tunnel: Tunnel, key: bytes, request_id: str) -> None:
        """A tunnel that was just joined; `key` is what it was opened with."""
        self._open[tunnel] = _Open(tunnel, key, request_id)
        if self._is_draining and tunnel.is_websocket:
            tunnel.close(GOING_AWAY, "")

    def discard(self, tunnel: Tunnel) -> None:
        self._open.pop(tunnel, None)

    def drain(self) -> None:
        """The worker is to end: WebSockets are told so, now and as they come. Other protocols have no word for it."""
        self._is_draining = True
        for tunnel in [*self._open]:
            if tunnel.is_websocket:
                tunnel.close(GOING_AWAY, "")

    async def _look_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look()
            except Exception:  # noqa: BLE001 - the next look may find what this one could not
                logger.exception("open tunnels could not be looked at")

    async def _look(self) -> None:
        """Ends what is idle or refused. A key asked for here counts as used, so a refresh keeps it in memory."""
        in_doubt: list[_Open] = []
        for number, each in enumerate([*self._open.values()], 1):
            if each.tunnel.idle_seconds() >= self._idle_seconds:
                self._end(each, GOING_AWAY, "idle timeout")
            elif (found := self._ring.find(each.key)) is None:
                in_doubt.append(each)
            else:
                self._judge(each, found)
            if number % LOOKS_AT_ONCE == 0:
                await asyncio.sleep(0)
        for start in range(0, len(in_doubt), READS_AT_ONCE):
            answers = await asyncio.gather(*map(self._read, in_doubt[start : start + READS_AT_ONCE]))
            if not all(answers):
                return

    async def _read(self, each: _Open) -> bool:
        """False while the database is away. Nothing is known against the key then: the tunnel stays, the next look asks
        again."""
        try:
            found = await self._ring.fetch(each.key)
        except AuthenticationUnavailable:
            return False
        self._judge(each, found)
        return True

    def _judge(self, each: _Open, found: Found) -> None:
        refusal: GatewayError | None = UnknownKey() if found is UNKNOWN else credential.refusal(found, time.time())
        if refusal is not None:
            self._end(each, POLICY_VIOLATION, refusal.message)

    def _end(self, each: _Open, code: int, reason: str) -> None:
        if not each.tunnel.is_closing:
            logger.bind(request_id=each.request_id).info(f"tunnel ended: {reason}")
        each.tunnel.close(code, reason)
