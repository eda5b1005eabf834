"""One connection to Redis: pipelined batches out, answers in their order, published messages apart.

coredis packs and parses (RESP3, both compiled); its own connection hands every batch through two tasks and two queues,
which cost ten times what the bytes do (docs/performance.md). Only app.core.redis.link uses this.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from coredis._packer import Packer
from coredis.constants.resp import DataType
from coredis.parser import NotEnoughData, Parser

from app.core.redis.refusals import RedisUnavailable
from app.core.redis.translation import translated

Command = tuple[bytes | str | int, ...] | bytes
"""Bytes are packed already: one whole command in RESP."""
Answers = list[Any] | RedisUnavailable
"""What a batch ends with: an answer a command, in their order, or that none was answered."""
Then = Callable[[Answers], object]
LAST_LOOK_TURNS: Final = 2
"""Turns of the loop in which an answer that lies in the socket already gets to its batch."""
PUSHES_MAX: Final = 65_536
"""Messages that a listener has not taken yet; one that is slower loses its connection, and catches up."""


class Batch:
    """Commands that were sent together; `then` is called once: all are answered, or time or the connection has ended.

    What comes in the place of a whole batch, or of one answer, is said at `RedisLink.run`.
    """

    __slots__ = ("_timeout_seconds", "_timer", "_wire", "answers", "has_failures", "missing", "then")

    def __init__(self, wire: RedisWire, count: int, timeout_seconds: float, then: Then) -> None:
        self._wire = wire
        self._timeout_seconds = timeout_seconds
        self._timer = wire.loop.call_later(timeout_seconds, self._late)
        self.answers: list[Any] = []
        self.missing = count
        self.has_failures = False
        self.then: Then | None = then

    def take(self, answer: Any) -> bool:
        """One more answer; whether it was the last."""
        self.answers.append(answer)
        self.missing -= 1
        if isinstance(answer, BaseException):
            self.has_failures = True
        if self.missing:
            return False
        self._tell()
        return True

    def cut_off(self, reason: str) -> None:
        """No more will come: what is missing may have run or not."""
        self._miss(f"connection lost: {reason}")

    def _miss(self, reason: str) -> None:
        self.has_failures = True
        self.answers += [RedisUnavailable(reason, sent=True) for _ in range(self.missing)]
        self.missing = 0
        self._tell()

    def _tell(self) -> None:
        then, self.then = self.then, None
        self._timer.cancel()
        if then is None:
            return
        answers: Answers = self.answers
        if self.has_failures:
            try:
                answers = translated(self.answers)
            except RedisUnavailable as failure:
                answers = failure
        try:
            then(answers)
        except Exception as error:  # noqa: BLE001 - a bug of one caller's: the connection is the others' too
            self._wire.loop.call_exception_handler({"message": "an answer of Redis's broke", "exception": error})

    def _late(self, turns: int = LAST_LOOK_TURNS) -> None:
        # A busy loop runs the timer before it reads the socket: the answer may be there already (Kong issue 13473).
        if self.then is None:
            return
        if turns:
            self._wire.loop.call_soon(self._late, turns - 1)
            return
        reason = f"no answer within {self._timeout_seconds * 1000:.0f} ms"
        self._wire.drop(reason)
        self._miss(reason)


class RedisWire:
    """Made by `loop.create_connection`. `begin` sends a batch; `pushes` are published messages, None at the end.

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

    def begin(self, commands: Sequence[Command], timeout_seconds: float, then: Then) -> None:
        """One write for all `commands`; `then` is told, at once when the connection has ended.

        After a time-out the connection is dropped, so a late answer cannot be taken for another's.
        """
        if self._transport is None or self._transport.is_closing():
            then(RedisUnavailable(self.reason or "connection lost", sent=False))
            return
        data = b"".join([self._packed(command) for command in commands])
        self._batches.append(Batch(self, len(commands), timeout_seconds, then))
        self._transport.write(data)

    def _packed(self, command: Command) -> bytes:
        return command if isinstance(command, bytes) else b"".join(self._packer.pack_commands([command]))

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
