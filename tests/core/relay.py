"""A way to a database's unix socket that a test can cut: the server lives on, this gateway alone cannot reach it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

from psycopg.conninfo import conninfo_to_dict

CHUNK_BYTES = 65_536


class Relay:
    """Listens on loopback from entering until leaving; `url` leads through it to the database at `target`."""

    def __init__(self, target: str) -> None:
        parts = {name: str(value) for name, value in conninfo_to_dict(target).items()}
        self._path = f"{parts['host']}/.s.PGSQL.{parts.get('port', '5432')}"
        self._user, self._name = parts["user"], parts["dbname"]
        self._connections: set[asyncio.Task[None]] = set()
        self._is_cut = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"postgresql://{self._user}@127.0.0.1:{port}/{self._name}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()
        self._server.close()
        await self._server.wait_closed()

    async def cut(self) -> None:
        """Ends every connection; new ones are closed at once, until `mend`."""
        self._is_cut = True
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def mend(self) -> None:
        self._is_cut = False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._join(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            if self._is_cut:
                return
            far_reader, far_writer = await asyncio.open_unix_connection(self._path)
            with contextlib.closing(far_writer):
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    writer.close()
