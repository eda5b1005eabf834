"""A way to Redis that can be made slow, and whose connections can be cut without a word: a TCP relay in a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import Final, Self

CHUNK_BYTES: Final = 65_536


class _Joined:
    """One connection through the detour. `is_silent`: what comes in goes nowhere, and nobody is told."""

    def __init__(self) -> None:
        self.said = b""
        self.is_silent = False


class Detour:
    """Listens on `port` of loopback from entering until leaving, and leads to `target_port`.

    `delay_seconds` holds up each direction.
    """

    def __init__(self, target_port: int) -> None:
        self.delay_seconds = 0.0
        self._target_port = target_port
        self._joined: set[_Joined] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="detour", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut_silently(self, mark: bytes) -> None:
        """The connections on which a client has said `mark` stay open and carry nothing more."""
        for joined in list(self._joined):
            joined.is_silent = joined.is_silent or mark in joined.said

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # a task of ours: asyncio complains loudly when one that it made itself is cancelled
        self._tasks.add(task := self._loop.create_task(self._join(reader, writer)))
        task.add_done_callback(self._tasks.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        joined = _Joined()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._joined.add(joined)
        try:
            ways = [self._carry(joined, reader, far_writer, is_client=True), self._carry(joined, far_reader, writer)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
        finally:
            self._joined.discard(joined)
            for each in (writer, far_writer):
                each.transport.abort()

    async def _carry(
        self, joined: _Joined, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_client: bool = False
    ) -> None:
        """Until the sender ends. Chunks keep their order when the delay changes, as on a real line."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sending = asyncio.create_task(self._deliver(joined, line, writer))
        try:
            with suppress(ConnectionError):
                while chunk := await reader.read(CHUNK_BYTES):
                    if is_client:
                        joined.said = (joined.said + chunk)[-CHUNK_BYTES:]
                    line.put_nowait((time.monotonic() + self.delay_seconds, chunk))
        finally:
            sending.cancel()

    async def _deliver(
        self, joined: _Joined, line: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        while True:
            ready_at, chunk = await line.get()
            await asyncio.sleep(max(0.0, ready_at - time.monotonic()))
            if not joined.is_silent:
                writer.write(chunk)
