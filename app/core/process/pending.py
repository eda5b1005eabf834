"""Lines that wait for the thread that writes them, in bounded memory. Any thread may call. No I/O."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Pending:
    """Beyond `bytes_max` lines are dropped, and counted; `rouse` is called with the first line after a `take`."""

    __slots__ = ("_bytes", "_bytes_max", "_is_roused", "_lines", "_lock", "_rouse", "dropped")

    def __init__(self, bytes_max: int, rouse: Callable[[], None]) -> None:
        self._bytes_max = bytes_max
        self._rouse = rouse
        self.start_empty()

    def start_empty(self) -> None:
        """After a fork: what was here is the parent's, and so is who held the lock."""
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._bytes = 0
        self._is_roused = False
        self.dropped = 0

    def put(self, line: bytes) -> None:
        """Takes one line; never blocks."""
        with self._lock:
            size = self._bytes + len(line)
            if size > self._bytes_max:
                self.dropped += 1
                return
            self._lines.append(line)
            self._bytes = size
            is_roused, self._is_roused = self._is_roused, True
        if not is_roused:
            self._rouse()

    def take(self) -> list[bytes]:
        """All lines. They count as pending until they are `written`, so that the bound holds for the whole way."""
        fresh: list[bytes] = []  # not under the lock: it may begin a collection, and what is collected may log
        with self._lock:
            self._is_roused = False
            lines, self._lines = self._lines, fresh
        return lines

    def written(self, size: int) -> None:
        """So many bytes are no longer pending."""
        with self._lock:
            self._bytes -= size

    def lose(self, count: int) -> None:
        """Counts lines that could not be written."""
        with self._lock:
            self.dropped += count

    def take_dropped(self) -> int:
        """How many were dropped, once lines are taken again; else 0."""
        with self._lock:
            if self._lines:
                return 0
            dropped, self.dropped = self.dropped, 0
        return dropped

    def sleep(self) -> None:
        """The thread that was roused ends: the next line rouses another."""
        with self._lock:
            self._is_roused = False
