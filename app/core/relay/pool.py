"""The connections to all backends of one worker: those that carry a request, and those that may. No waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from app.core.errors import BackendFailed, BackendTimedOut, BackendUnavailable
from app.core.model import Backend
from app.core.relay.peer import Peer

IDLE_CONNECTIONS_MAX: Final = 256
IDLE_SECONDS_MAX: Final = 55.0


class Pool:
    """Each connection that is taken or put here busy is to be released, or given up."""

    __slots__ = ("_busy", "_clock", "idle")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.idle: dict[Backend, list[Peer]] = {}
        self._busy: set[Peer] = set()

    @property
    def busy_count(self) -> int:
        return len(self._busy)

    @property
    def idle_count(self) -> int:
        return sum([len(idle) for idle in self.idle.values()])

    def take(self, backend: Backend) -> Peer | None:
        """The connection used last: the likeliest to be alive. Closed ones are forgotten."""
        idle = self.idle.get(backend)
        while idle:
            peer = idle.pop()
            if peer.is_usable:
                self._busy.add(peer)
                return peer
        return None

    def add(self, peer: Peer) -> None:
        """A new one, busy."""
        self._busy.add(peer)

    def make_room(self, backend: Backend) -> None:
        """Ends the oldest that is idle: with a fresh one there are never more than requests were at once."""
        if idle := self.idle.get(backend):
            idle.pop(0).abort()

    def release(self, peer: Peer, *, reusable: bool) -> None:
        """Called once a request, by whoever ends it."""
        if peer not in self._busy:
            return
        self._busy.discard(peer)
        idle = self.idle.get(peer.backend)
        if idle is None:
            idle = self.idle[peer.backend] = []
        if reusable and peer.end() and len(idle) < IDLE_CONNECTIONS_MAX:
            peer.deadline = self._clock() + IDLE_SECONDS_MAX
            idle.append(peer)
        else:
            peer.abort()

    def give_up(self, peer: Peer, error: BaseException, *, is_kept: bool, is_streamed: bool = False) -> None:
        """Ends a request before the head of its answer: `error` is told how far it had come.

        `is_streamed`: its body goes out in writes of its own. Then what was dropped need not have been all of it, nor
        could it be sent again.
        """
        if isinstance(error, BackendFailed):
            is_unsent = peer.has_dropped and not is_streamed
            error.progress = "answering" if peer.has_answered else "unsent" if is_unsent else "unanswered"
            error.was_kept = is_kept
        self.release(peer, reusable=False)

    def sweep(self) -> None:
        """Looks at every deadline."""
        now = self._clock()
        for peer in [peer for peer in self._busy if peer.is_overdue(now)]:
            peer.fail(BackendTimedOut())
        for backend, idle in self.idle.items():
            kept = [peer for peer in idle if peer.is_usable and peer.deadline > now]
            for peer in set(idle).difference(kept):
                peer.abort()
            self.idle[backend] = kept

    def close(self) -> None:
        """Ends them all; whoever waits for one gets BackendUnavailable."""
        for peer in [*self._busy]:  # a copy: those that are woken may release theirs at once
            peer.fail(BackendUnavailable())
        for idle in self.idle.values():
            for peer in idle:
                peer.abort()
        self.idle.clear()
        self._busy.clear()
