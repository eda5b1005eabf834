"""One connection to Redis: pipelined batches out, answers in their order, published messages apart.

coredis packs and parses (RESP3, both compiled); its own connection hands every batch through two tasks and two queues,
which cost ten times what the bytes do (docs/performance.md). Only app.core.redis.link uses this.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

from coredis._packer import Packer
from coredis.constants.resp import DataType
from coredis.parser import NotEnoughData, Parser

from app.core.redis.refusals import RedisUnavailable

Command = tuple[bytes | str | int, ...]
PUSHES_MAX: Final = 65_536
"""Messages that a listener has not taken yet; one that is slower loses its connection, and catches up."""


class Batch:
    """Commands that were sent together. `then` is called once, when all are answered or the connection has ended."""

    __slots__ = ("_loop", "answers", "missing", "then")

    def __init__(self, count: int, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.answers: list[Any] = []
        self.missing = count
        self.then: Callable[[], object] | None = None

    def end(self) -> asyncio.Future[None]:
        """Done at that moment. Cancelling who waits harms nobody."""
        future: asyncio.Future[None] = self._loop.create_future()
        self.then = partial(_set, future)
        return future

    def take(self, answer: Any) -> bool:
        """One more answer; whether it was the last."""
        self.answers.append(answer)
        self.missing -= 1
        if not self.missing:
            self.finish()
        return not self.missing

    def cut_off(self, reason: str) -> None:
        """No more will come: what is missing may have run or not."""
        self.answers += [RedisUnavailable(f"connection lost: {reason}", sent=True) for _ in range(self.missing)]
        self.missing = 0
        self.finish()

    def finish(self) -> None:
        then, self.then = self.then, None
        if then is not None:
            then()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class RedisWire:
    """Made by `loop.create_connection`. `send` gives a Batch; `pushes` are published messages, None at the end.

    `reason`: why it ended; `was_dropped`: by us. An asyncio.Protocol in all but name, so that it can be native
    (compiled.py).
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.was_dropped = False
        self.pushes: asyncio.Queue[list[Any] | None] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        self.ended = self.loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._parser = Parser()
        self._packer = Packer("utf-8")
        self._batches: deque[Batch] = deque()

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, commands: Sequence[Command]) -> Batch:
        """One write for all `commands`. Raises RedisUnavailable when the connection has ended."""
        if self._transport is None or self._transport.is_closing():
            raise RedisUnavailable(self.reason or "connection lost", sent=False)
        batch = Batch(len(commands), self.loop)
        self._batches.append(batch)
        self._transport.write(b"".join(self._packer.pack_commands(list(commands))))
        return batch

    def subscribe(self, channel: str) -> None:
        """Its confirmation is the first of the `pushes`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._packer.pack_commands([(b"SUBSCRIBE", channel)])))

    def drop(self, reason: str) -> None:
        """Ends the connection: a late answer must not be taken for another's."""
        if self.reason is None:
            self.reason, self.was_dropped = reason, True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        parser.feed(data)
        try:
            parsed: Any = parser.parse(decode=False, encoding="utf-8")
            while not isinstance(parsed, NotEnoughData):
                self._take(*parsed)
                parsed = parser.parse(decode=False, encoding="utf-8")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is no Redis that speaks there
            self.drop(f"not understood: {error}")

    def _take(self, kind: Any, answer: Any) -> None:
        if kind == DataType.PUSH:
            self.pushes.put_nowait(answer)
            if self.pushes.qsize() > PUSHES_MAX:
                self.drop("messages come faster than they are taken")
        elif not self._batches:
            self.drop("an answer to nothing")
        elif self._batches[0].take(answer):
            self._batches.popleft()

    def connection_lost(self, exc: Exception | None) -> None:
        self.reason = self.reason or (str(exc) if exc else "closed by the server")
        self._parser.on_disconnect()
        while self._batches:
            self._batches.popleft().cut_off(self.reason)
        self.pushes.put_nowait(None)
        if not self.ended.done():
            self.ended.set_result(None)
