"""What changed, brought to every gateway: published through Redis for speed, polled from the database to lose nothing.

A message can be lost (Redis away, a subscription that broke, a process that died between commit and publish); the rows
that the database's triggers write in the same transaction cannot. So whoever hears nothing learns of a change by the
next poll, and after an outage of any length by the first poll that succeeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, Self, TypeVar

from loguru import logger

from app.core.changes.change_message import CHANGES_MAX, decode, encode
from app.core.model import Change
from app.core.redis.link import RedisLink, RedisUnavailable, Subscribed

CHANNEL: Final = "gateway:changes"
PUBLISH_SECONDS: Final = 0.5
POLL_PAUSE_SECONDS: Final = 1.5
POLL_SECONDS_MAX: Final = 1.0
RETRY_PAUSE_SECONDS: Final = 0.5
"""Up to twice this. A change that just misses a poll whose successor fails waits 1.5 + 1 + 1 + 1 s: less than 5."""
WARNING_PAUSE_SECONDS: Final = 10.0

Mark = TypeVar("Mark")
Poll = Callable[[Mark | None], Awaitable[tuple[Mark, list[Change], bool]]]


async def publish(link: RedisLink, changes: Sequence[Change]) -> int | None:
    """Tells every gateway, after the commit. How many heard it; None when Redis could not be told within 0.5 s.

    Never raises for a Redis that is away: the poll carries the change then.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PUBLISH_SECONDS
    if not await link.wait_up(PUBLISH_SECONDS):  # a tool publishes on a link that it opened just now
        return None
    messages = [encode(changes[at : at + CHANGES_MAX]) for at in range(0, len(changes), CHANGES_MAX)]
    try:
        answers = await link.run([("PUBLISH", CHANNEL, message) for message in messages], deadline - loop.time())
    except RedisUnavailable:
        return None
    heard = [answer for answer in answers if isinstance(answer, int)]
    return min(heard) if heard and len(heard) == len(messages) else None


class ChangeFeed(Generic[Mark]):
    """Calls `apply` with every change, from entering until leaving: an async context manager.

    `link` (a RedisLink of its own; None without Redis) is listened to. `poll` (None without a database) takes the mark
    that it gave last, None at first, and gives the next one, the changes in between, and whether some of them are lost.
    `last_change_at` and `last_poll_ok_at` are unix seconds, None as long as there was none.
    """

    def __init__(
        self,
        link: RedisLink | None,
        poll: Poll[Mark] | None,
        apply: Callable[[Sequence[Change]], None],
        *,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.last_change_at: float | None = None
        self.last_poll_ok_at: float | None = None
        self._link = link
        self._poll = poll
        self._apply_changes = apply
        self._clock = clock
        self._jitter = jitter
        self._mark: Mark | None = None
        self._poll_is_due = asyncio.Event()
        self._is_failing = False
        self._ignored = 0
        self._warned_at = float("-inf")
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        if self._link is not None:
            self._tasks.append(asyncio.create_task(self._listen(self._link), name="changes-listen"))
        if self._poll is not None:
            self._tasks.append(asyncio.create_task(self._watch(self._poll), name="changes-poll"))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- Redis ---

    async def _listen(self, link: RedisLink) -> None:
        while True:
            try:
                async with contextlib.aclosing(link.listen(CHANNEL)) as messages:
                    async for message in messages:
                        self._hear(message)
            except Exception:  # noqa: BLE001  a bug here must not cost the next revocation its speed
                logger.exception("Listening for changes begins anew")
                self._poll_is_due.set()
                await asyncio.sleep(RETRY_PAUSE_SECONDS)

    def _hear(self, message: bytes | Subscribed) -> None:
        if isinstance(message, Subscribed):
            self._poll_is_due.set()  # what was published before is lost
            return
        try:
            changes = decode(message)
        except ValueError as error:
            self._ignore(error)
        else:
            self._apply(changes)

    def _ignore(self, error: ValueError) -> None:
        self._ignored += 1
        if time.monotonic() - self._warned_at < WARNING_PAUSE_SECONDS:
            return
        logger.warning(f"Ignored {self._ignored} messages on {CHANNEL} that are none of ours, the latest: {error}")
        self._ignored, self._warned_at = 0, time.monotonic()

    # --- the database ---

    async def _watch(self, poll: Poll[Mark]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            self._poll_is_due.clear()
            if await self._poll_once(poll):
                pause = began + POLL_PAUSE_SECONDS * (1 - self._jitter() / 10) - loop.time()
            else:
                pause = RETRY_PAUSE_SECONDS * (1 + self._jitter())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._poll_is_due.wait()

    async def _poll_once(self, poll: Poll[Mark]) -> bool:
        try:
            async with asyncio.timeout(POLL_SECONDS_MAX):
                await self._catch_up(poll)
        except Exception as error:  # noqa: BLE001  whatever it was, the next poll starts from the same mark
            if not self._is_failing:
                logger.warning(f"Changes cannot be read from the database: {type(error).__name__}: {error}")
            self._is_failing = True
            return False
        self._is_failing = False
        self.last_poll_ok_at = self._clock()
        return True

    async def _catch_up(self, poll: Poll[Mark]) -> None:
        mark, changes, lost = await poll(self._mark)
        if self._mark is None:
            self._apply_changes(
                [Change("all")]
            )  # what was read before the first mark may have changed before it, unheard
        elif lost:
            logger.warning("Changes are lost: every API key in memory is read again before its next use")
            self._apply([Change("all")])
        else:
            self._apply(changes)
        self._mark = mark

    def _apply(self, changes: Sequence[Change]) -> None:
        if changes:
            self._apply_changes(changes)
            self.last_change_at = self._clock()
