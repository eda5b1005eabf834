"""One request as a router sends it: the next gateway when one refuses to connect, again when a kept connection ended.

A GET whose connection ends before the first byte of an answer may be repeated (RFC 9110 section 9.2.2); a router does
so on kept connections only, where the gateway may have closed just before the request came. What fails on a fresh
connection is lost.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from contextlib import suppress
from typing import Final, NamedTuple

CONNECT_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 15.0
"""Longer than a hung worker lives."""
KEPT_MAX: Final = 8
"""Connections to each gateway: enough that all of its workers have some."""
HEAD_BYTES_MAX: Final = 16_384

Way = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Answer(NamedTuple):
    """`text` is the status, or why there is no answer; `head` the answer's head in lower case."""

    text: str
    head: bytes = b""
    retries: int = 0

    def field(self, name: bytes) -> str:
        after = self.head.partition(b"\r\n" + name + b": ")[2]
        return after.partition(b"\r\n")[0].decode() if after else ""


class _Ended(Exception):
    """The connection ended before the first byte of an answer."""


class Caller:
    """Sends over the gateways at `ports` in turn. `is_kept`: connections are kept and used in turn."""

    def __init__(self, ports: tuple[int, ...], *, is_kept: bool) -> None:
        self._ports = deque(ports)
        self._is_kept = is_kept
        self._idle: dict[int, deque[Way]] = defaultdict(deque)
        self._open: dict[int, int] = defaultdict(int)

    async def ask(self, request: bytes) -> Answer:
        """Never raises for what a gateway does."""
        self._ports.rotate(-1)
        retries = 0
        deadline = time.monotonic() + ANSWER_SECONDS
        for port in (*self._ports, *self._ports):
            with suppress(OSError):
                is_reused, way = await self._way(port)
                try:
                    return (await self._exchange(port, way, request, deadline))._replace(retries=retries)
                except _Ended:
                    if not is_reused:
                        return Answer("connection lost", retries=retries)
            retries += 1
        return Answer("refused", retries=retries)

    def close(self) -> None:
        for ways in self._idle.values():
            for _, writer in ways:
                writer.transport.abort()

    async def _way(self, port: int) -> tuple[bool, Way]:
        """A connection and whether it was used before. Raises OSError (TimeoutError too)."""
        idle = self._idle[port]
        if idle and self._open[port] >= KEPT_MAX:
            return True, idle.popleft()
        way = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), CONNECT_SECONDS)
        self._open[port] += 1
        return False, way

    async def _exchange(self, port: int, way: Way, request: bytes, deadline: float) -> Answer:
        reader, writer = way
        answer, is_open = Answer("no answer"), False
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                writer.write(request)
                answer, is_open = await _read(reader)
        except TimeoutError:
            pass
        finally:
            if is_open and self._is_kept:
                self._idle[port].append(way)
            else:
                self._open[port] -= 1
                writer.transport.abort()
        return answer


async def _read(reader: asyncio.StreamReader) -> tuple[Answer, bool]:
    """The answer, and whether its connection can carry another request. Raises _Ended."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            raise _Ended from None
        return Answer("answer cut off"), False
    except ConnectionError:
        raise _Ended from None
    answer = Answer(head[9:12].decode(), head)
    try:
        await reader.readexactly(int(answer.field(b"content-length") or 0))
    except (asyncio.IncompleteReadError, ConnectionError):
        return Answer("answer cut off"), False
    return answer, answer.field(b"connection") != "close"
