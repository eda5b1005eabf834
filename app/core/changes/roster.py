"""The gateway workers as seen from outside: which live, and what they hold of a key."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from loguru import logger

from app.core.changes.presence import QUESTIONS, SEND_SECONDS, answers_key, look
from app.core.changes.presence_message import ANSWER, QUESTION, WORKER, Answer, Message, Question, Shape, Worker
from app.core.redis.link import Command, RedisLink

ANSWER_SECONDS_MAX: Final = 0.3
LOOK_PAUSE_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class Heard:
    """The answers to one question, by node. `asked`: how many workers were listening; one may be too busy to answer."""

    asked: int
    answers: tuple[Answer, ...]


class Roster:
    """Over an entered `link`. Its methods raise RedisUnavailable or RedisRefusal when Redis does not do its part."""

    def __init__(self, link: RedisLink, *, new_nonce: Callable[[], str] = lambda: secrets.token_hex(16)) -> None:
        self._link = link
        self._new_nonce = new_nonce

    async def workers(self) -> list[Worker]:
        """Those that live, by node; what each says is a second old at most."""
        (texts,) = await self._run([look()])
        return sorted(_decoded(WORKER, texts), key=lambda worker: worker.node)

    async def ask(self, digest: bytes) -> Heard:
        """What every worker holds of the key with this digest (32 bytes); waits ANSWER_SECONDS_MAX for the slowest."""
        nonce = self._new_nonce()
        deadline = asyncio.get_running_loop().time() + ANSWER_SECONDS_MAX
        (asked,) = await self._run([(b"PUBLISH", QUESTIONS, QUESTION.encode(Question(nonce, digest.hex())))])
        texts = await self._gather(answers_key(nonce), asked, deadline)
        return Heard(asked, tuple(sorted(_decoded(ANSWER, texts), key=lambda answer: answer.node)))

    async def _gather(self, key: str, count: int, deadline: float) -> list[Any]:
        """The answers: `count` of them, or those that came until `deadline` (the loop's clock)."""
        texts: list[Any] = []
        while len(texts) < count:
            (texts,) = await self._run([(b"LRANGE", key, 0, -1)])
            if len(texts) >= count or asyncio.get_running_loop().time() >= deadline:
                break
            await asyncio.sleep(LOOK_PAUSE_SECONDS)
        return texts

    async def _run(self, commands: list[Command]) -> list[Any]:
        answers = await self._link.run(commands, SEND_SECONDS)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers


def _decoded(message: Message[Shape], texts: list[Any]) -> list[Shape]:
    """Those that can be read. A worker of a version far from ours is worth a line in the log, not a failure."""
    decoded: list[Shape] = []
    for text in texts:
        try:
            decoded.append(message.decode(text))
        except ValueError as error:
            logger.warning(f"A gateway worker said something that cannot be read: {type(error).__name__}")
    return decoded
