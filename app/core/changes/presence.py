"""A gateway worker makes itself known through Redis: that it lives, and what it holds of a key when somebody asks.

For the people who run the gateways. No request depends on it, so without Redis it simply waits for Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Final, Self

from loguru import logger

from app.core.changes.presence_message import ANSWER, QUESTION, WORKER, Answer, Worker
from app.core.keys.holding import Holding
from app.core.redis.link import Command, RedisLink, RedisUnavailable, Subscribed

SCRIPT: Final = Path(__file__).with_name("presence.lua").read_text()
TEXTS_KEY: Final = "gw:{workers}:said"
SEEN_KEY: Final = "gw:{workers}:seen"
QUESTIONS: Final = "gateway:questions"
HEARTBEAT_SECONDS: Final = 1.0
SILENT_SECONDS_MAX: Final = 5
"""Redis counts whole seconds, and a worker may miss two heartbeats while its loop is busy."""
SEND_SECONDS: Final = 0.5
ANSWERS_LIVE_SECONDS: Final = 10
AFTER_BUG_SECONDS: Final = 1.0


def answers_key(nonce: str) -> str:
    """The list that the answers to one question are gathered in."""
    return f"gw:answers:{nonce}"


class Presence:
    """From entering until leaving, says every second what `describe` returns, and answers questions with `look_up`.

    `link` may be one that serves commands already: Redis's pushes and answers do not mix (RESP3). An async context
    manager; `look_up` takes a digest (32 bytes), and both functions answer from memory.
    """

    def __init__(
        self, link: RedisLink, describe: Callable[[], Worker], look_up: Callable[[bytes], Holding], *, node: str
    ) -> None:
        self._link = link
        self._describe = describe
        self._look_up = look_up
        self._node = node
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._announce(), name="presence-announce"),
            asyncio.create_task(self._listen(), name="presence-listen"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        leave: list[Command] = [(b"HDEL", TEXTS_KEY, self._node), (b"ZREM", SEEN_KEY, self._node)]
        with suppress(RedisUnavailable):
            await self._link.run(leave, SEND_SECONDS)

    async def _announce(self) -> None:
        while True:
            await self._link.wait_up()
            said = WORKER.encode(self._describe())
            # A Redis that takes no writes is the limiter's to report; here the worker is missing from a list.
            with suppress(RedisUnavailable):
                await self._link.run([look(self._node, said)], SEND_SECONDS)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _listen(self) -> None:
        while True:
            try:
                async with aclosing(self._link.listen(QUESTIONS)) as messages:
                    async for message in messages:
                        await self._answer(message)
            except Exception:  # noqa: BLE001  one question that breaks us must not silence us for ever
                logger.exception("Listening for questions begins anew")
                await asyncio.sleep(AFTER_BUG_SECONDS)

    async def _answer(self, message: bytes | Subscribed) -> None:
        if isinstance(message, Subscribed):
            return
        try:
            question = QUESTION.decode(message)
            digest = bytes.fromhex(question.digest)
        except ValueError:
            logger.warning(f"Ignored a message on {QUESTIONS} that is no question")
            return
        key = answers_key(question.nonce)
        said = ANSWER.encode(Answer(self._node, self._look_up(digest)))
        with suppress(RedisUnavailable):
            await self._link.run([(b"RPUSH", key, said), (b"EXPIRE", key, ANSWERS_LIVE_SECONDS)], SEND_SECONDS)


def look(*speaker: str | bytes) -> Command:
    """The command that returns what all live workers said last. `speaker`: a worker and its text, or nobody."""
    return (b"EVAL", SCRIPT, 2, TEXTS_KEY, SEEN_KEY, SILENT_SECONDS_MAX, *speaker)
