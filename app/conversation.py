"""The requests of a client's connection, in order, as far as that takes no task: what comes in, and what comes next.

Native where tools/compile has run, so that a plain request meets few frames of Python on its way (compiled.py); all
that waits, and Sanic's side of a connection, is the door's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from app.client_connection import IDLE_SECONDS
from app.fast_path import FastPath, takes
from app.message import Message
from app.reader import Reader


class Conversation:
    """`door` is the DoorProtocol of the connection; `services` are what the fast path needs, None where there is none.

    An asyncio.Protocol in all but name: the transport's own, once the connection is made.
    """

    __slots__ = ("_door", "_is_serving", "_reader", "_services", "_time")

    def __init__(self, door: Any, reader: Reader, services: Any) -> None:
        self._door: Any = door
        self._reader = reader
        self._services: Any = services
        self._time: Callable[[], float] = door.loop.time
        self._is_serving = False

    # --- asyncio's side ---

    def data_received(self, data: bytes) -> None:
        door, reader = self._door, self._reader
        if door.is_lingering:
            return
        was_in_head = reader.in_head
        reader.feed(data)
        is_busy = door.exchange is not None
        if reader.queue and not is_busy and door.can_write:
            door.deadline = math.inf  # as restart_clock would find, for the most frequent case
        elif is_busy or reader.in_head is not was_in_head:
            door.restart_clock()
        if reader.queue:
            self.serve()

    def eof_received(self) -> bool:
        stays_open: bool = self._door.eof_received()
        return stays_open

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.connection_lost(exc)

    def pause_writing(self) -> None:
        self._door.pause_writing()

    def resume_writing(self) -> None:
        self._door.resume_writing()

    # --- the requests ---

    def serve(self) -> None:
        """Begins the next request, and the ones after it as long as each has its answer at once."""
        if self._is_serving:
            return
        door, queue = self._door, self._reader.queue
        self._is_serving = True
        try:
            while queue and door.exchange is None and door._task is None and not door.is_over:
                self._begin(queue.popleft())
        finally:
            self._is_serving = False

    def _begin(self, message: Message) -> None:
        door = self._door
        if self._services is not None and door.can_write and takes(message):
            door.exchange = path = FastPath(self, door, self._services, message)
            path.go()
        else:
            door.begin(message)

    def answered(self, keep_alive: bool) -> None:
        """The request that was served without a task has its answer."""
        door = self._door
        door.exchange = None
        if not keep_alive or door.is_gone:
            door.is_over = True
        if door.is_over and not door.is_gone and door.transport is not None:
            door.linger()
        else:
            self.go_on()

    def go_on(self) -> None:
        """After an answer: with the next request, or with waiting for it."""
        door, reader = self._door, self._reader
        if door.is_over:
            door.close()
            return
        if reader.queue:
            door.restart_clock()
            self.serve()
            return
        if door.can_write and not reader.in_head:
            door.deadline = self._time() + IDLE_SECONDS  # as restart_clock would find, for the most frequent case
        else:
            door.restart_clock()
        if door.is_reading_paused:
            door.resume_reading()  # which serves what was held
