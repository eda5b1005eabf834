"""Keys that memory does not hold, asked for together: whoever waits at the same moment shares one statement.

A worker that has just started holds no keys, and each one's first request waits for the database: asked one by one
they get no further than the round trips do.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from app.core.keys.refresh import LoadMany
from app.core.model import Credential

BATCH_MAX: Final = 100
"""Keys in one statement: 1.5 ms of the event loop's time."""
BATCHES_MAX: Final = 2
"""Under way at once; whoever comes meanwhile waits for the next, which is the larger for it."""
WAIT_SECONDS_MAX: Final = 1.0
"""As long as a statement takes at most: who came behind one that gets no answer waits no longer than for it."""


@dataclass(frozen=True, slots=True)
class _Waiter:
    digest: bytes
    answer: asyncio.Future[Credential | None]


class Lookups:
    """`load` for a KeyRing, by way of `load_many`. Nobody waits for company: a batch leaves on the loop's next turn."""

    def __init__(self, load_many: LoadMany, wait_seconds: float = WAIT_SECONDS_MAX) -> None:
        self._load_many = load_many
        self._wait_seconds = wait_seconds
        self._waiting: list[_Waiter] = []
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps no task alive

    async def load(self, digest: bytes) -> Credential | None:
        """The key with this digest (32 bytes), read after this call; None when there is none.

        Raises what `load_many` raises, or TimeoutError when its turn does not come in `wait_seconds`.
        """
        waiter = _Waiter(digest, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        if self._under_way < BATCHES_MAX:
            self._under_way += 1
            task = asyncio.create_task(self._ask_for_all())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            async with asyncio.timeout(self._wait_seconds):
                return await waiter.answer
        except TimeoutError:
            raise TimeoutError(f"no answer within {self._wait_seconds:g} s") from None

    async def _ask_for_all(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[:BATCH_MAX]
                del self._waiting[:BATCH_MAX]
                await self._ask(_still_there(batch))
        finally:
            self._under_way -= 1  # in the moment of that last look: who comes after it must begin anew

    async def _ask(self, batch: list[_Waiter]) -> None:
        if not batch:
            return
        try:
            async with asyncio.timeout(self._wait_seconds):
                found = await self._load_many([waiter.digest for waiter in batch])
        except Exception as error:  # noqa: BLE001  whatever it was, it is each waiter's to hear
            _fail(batch, error)
        else:
            for waiter in _still_there(batch):
                waiter.answer.set_result(found.get(waiter.digest))
        finally:
            _fail(batch, None)  # the batch was cancelled: its waiters with it
            batch.clear()  # else an error, which knows this frame, would know itself, and wait for the collector


def _fail(batch: list[_Waiter], error: Exception | None) -> None:
    for waiter in _still_there(batch):
        waiter.answer.cancel() if error is None else waiter.answer.set_exception(error)


def _still_there(batch: list[_Waiter]) -> list[_Waiter]:
    return [waiter for waiter in batch if not waiter.answer.done()]
