"""How many connections a worker holds, in all and from one address. Beyond it idle ones make room for newcomers.

Only who finds nobody idle to take the place of is refused. Costs nothing but at a connection's beginning and end.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from typing import Final, Literal, Protocol

from loguru import logger

Entry = Literal["serve", "refuse", "drop"]
PATIENCE_SECONDS: Final = 1.0
"""For so long a connection may wait for its client's request before it can be asked to make room."""
ROOM_SHARE: Final = 32
"""A look at all connections frees this part of them at once: a flood must not cost a look for each newcomer."""
LOOK_SECONDS: Final = 0.1
"""After a look that found nobody idle, none is taken again for so long."""
LEAVING_MAX: Final = 100
"""Connections that are being told why they end, in up to a second (RFC 9112 section 9.6). More end without a word."""
WARN_SECONDS: Final = 60.0


class Guest(Protocol):
    """A connection as it is seen here."""

    @property
    def waits_since(self) -> float:
        """Since when (loop time) it waits for its client's next request; inf while it serves one."""

    def lose_patience(self, now: float) -> None:
        """Ends the wait as its deadline would."""


class Occupancy:
    """The connections of one worker. `is_router(ip)`: many clients share this address, so only the total bounds it."""

    def __init__(self, connections_max: int, per_address_max: int, is_router: Callable[[str], bool]) -> None:
        self.connections_max = connections_max
        self.per_address_max = per_address_max
        self._is_router = is_router
        self._guests: dict[Guest, str] = {}
        self._by_address: dict[str, set[Guest]] = {}
        self._leaving: set[Guest] = set()
        self._look_again: dict[str, float] = {}
        self._warn_again = 0.0

    def __len__(self) -> int:
        return len(self._guests)

    def enter(self, guest: Guest, ip: str, now: float) -> Entry:
        """Whether `guest` is served, refused with an answer, or one refusal too many. `now`: loop time.

        `leave` is to be called in the end, whatever this returned.
        """
        if len(self._guests) >= self.connections_max and not self._make_room("", self._guests, now):
            return self._turn_away(guest, now)
        if not self._is_router(ip):
            same = self._by_address.get(ip, ())
            if len(same) >= self.per_address_max and not self._make_room(ip, same, now):
                return self._turn_away(guest, now)
            self._by_address.setdefault(ip, set()).add(guest)
        self._guests[guest] = ip
        return "serve"

    def leave(self, guest: Guest) -> None:
        """To be called when a connection has ended, whatever it was told; more than once does no harm."""
        self._leaving.discard(guest)
        ip = self._guests.pop(guest, None)
        if ip is None:
            return
        same = self._by_address.get(ip)
        if same is not None:
            same.discard(guest)
            if not same:
                del self._by_address[ip]
                self._look_again.pop(ip, None)

    def _turn_away(self, guest: Guest, now: float) -> Entry:
        if now >= self._warn_again:
            self._warn_again = now + WARN_SECONDS
            logger.warning(f"too many connections: newcomers are refused while {len(self)} are served")
        if len(self._leaving) >= LEAVING_MAX:
            return "drop"
        self._leaving.add(guest)
        return "refuse"

    def _make_room(self, scope: str, among: Collection[Guest], now: float) -> bool:
        """Ends those that have waited longest for their clients. False when all are busy, or came just now."""
        if now < self._look_again.get(scope, 0.0):
            return False
        room = min(LEAVING_MAX - len(self._leaving), max(1, len(among) // ROOM_SHARE))
        waiting = [guest for guest in among if guest.waits_since <= now - PATIENCE_SECONDS]
        longest = heapq.nsmallest(room, waiting, key=lambda guest: guest.waits_since)
        for guest in longest:
            self.leave(guest)
            self._leaving.add(guest)
            guest.lose_patience(now)
        if not longest:
            self._look_again[scope] = now + LOOK_SECONDS
        return bool(longest)
