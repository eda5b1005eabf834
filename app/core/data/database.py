"""A bounded way to PostgreSQL: no statement waits longer than QUERY_SECONDS, whatever the server does.

Refuses, dies, or stops answering with its connections open: the caller gets StoreUnavailable within a second. A process
starts without a database, and this heals by itself when one comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, Self

import psycopg
from loguru import logger
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, PoolTimeout

QUERY_SECONDS: Final = 0.9
"""For a connection and a statement together; the callers promise an answer within a second."""
STATEMENT_SECONDS: Final = 0.8
"""When the server gives up by itself. Shorter, so that a slow statement need not cost its connection."""
CONNECT_SECONDS: Final = 2  # libpq knows no smaller one
TRANSACTION_SECONDS: Final = 3.0
"""For a whole transaction; each of its statements has STATEMENT_SECONDS."""
PING_SECONDS: Final = 1.0
CONNECTIONS_MAX: Final = 3
"""A worker's. Few, because small databases allow 20 connections and a miss holds one for less than a millisecond."""
WAITING_MAX: Final = 512

Row = tuple[Any, ...]
Connection = psycopg.AsyncConnection[Row]
Cursor = psycopg.AsyncCursor[Row]


class StoreUnavailable(Exception):
    """The database did not do it, for the reason in the text (for the log; it may name hosts, never a password)."""


class _Connection(Connection):
    """Tells why connecting failed: the pool keeps that to itself and reports time-outs only."""

    @classmethod
    async def connect(cls, conninfo: str = "", *, note: Callable[[psycopg.Error], None], **options: Any) -> Self:  # type: ignore[override]
        try:
            return await super().connect(conninfo, **options)
        except psycopg.Error as error:
            note(error)
            raise


class Database:
    """Connections to the database at `url`, which lists them under `name`.

    An async context manager; entering it waits for nothing. `is_up` is what was known last, `ever_up` whether the
    database could be used at least once, `last_error` the latest reason why not.
    """

    def __init__(self, url: str, *, name: str) -> None:
        self.is_up = False
        self.ever_up = False
        self.last_error: str | None = None
        self._connect_error: str | None = None
        self._running: set[asyncio.Task[list[Row]]] = set()
        self._pool = AsyncConnectionPool(
            url,
            connection_class=_Connection,
            kwargs={**_options(url), "application_name": name, "note": self._note_connect_error},
            open=False,
            min_size=1,
            max_size=CONNECTIONS_MAX,
            max_waiting=WAITING_MAX,
            timeout=QUERY_SECONDS,
            # The pool's pauses double (1 s, 2 s, 4 s); giving up early and asking again keeps them at one second.
            reconnect_timeout=1.0,
            max_lifetime=1_800,
        )

    async def __aenter__(self) -> Self:
        await self._pool.open()
        self._healer = asyncio.create_task(self._heal())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._healer.cancel()
        await asyncio.gather(self._healer, *self._running, return_exceptions=True)
        await self._pool.close(timeout=QUERY_SECONDS)

    async def run(self, query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
        """Rows of one statement. A caller that is cancelled leaves at once: cancelling a statement is a request to the
        server (up to 5 s against one that hangs), so the statement runs on in a task of its own, to its deadline."""
        task = asyncio.create_task(self._execute(query, parameters))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Commits at the end of the block, rolls back on an exception; all of it within TRANSACTION_SECONDS.

        Raises StoreUnavailable. Run it where no caller's cancellation reaches it, for the reason that `run` gives.
        """
        held: list[Connection] = []
        try:
            async with contextlib.AsyncExitStack() as stack:
                timer = asyncio.get_running_loop().call_later(TRANSACTION_SECONDS, _cut_all, held)
                stack.callback(timer.cancel)  # first, so that it runs last: the deadline is for the commit too
                held.append(await self._begin(stack))
                yield held[0]
            self._went_up([])
        except (psycopg.IntegrityError, psycopg.DataError):
            raise  # the database is there, and the bug is ours: the rules let through what its constraints refuse
        except psycopg.Error as error:
            raise StoreUnavailable(self._went_down(error)) from error

    async def _begin(self, stack: contextlib.AsyncExitStack) -> Connection:
        """After a restart of the server each pooled connection fails once, and nothing was sent before BEGIN."""
        for remaining in reversed(range(CONNECTIONS_MAX + 1)):
            attempt = await stack.enter_async_context(contextlib.AsyncExitStack())
            connection = await attempt.enter_async_context(self._pool.connection(timeout=QUERY_SECONDS))
            try:
                await attempt.enter_async_context(connection.transaction())
            except psycopg.OperationalError:
                await attempt.aclose()
                if not remaining:
                    raise
            else:
                return connection
        raise AssertionError("unreachable")

    async def _execute(self, query: str, parameters: Sequence[Any] | Mapping[str, Any]) -> list[Row]:
        deadline = asyncio.get_running_loop().time() + QUERY_SECONDS
        try:
            # After a restart of the server each pooled connection fails once; the statements bear repeating.
            for _ in range(CONNECTIONS_MAX):
                with contextlib.suppress(_StaleConnection):
                    return self._went_up(await self._attempt(query, parameters, deadline))
            return self._went_up(await self._attempt(query, parameters, deadline, is_last=True))
        except psycopg.Error as error:
            raise StoreUnavailable(self._went_down(error)) from error

    async def _attempt(
        self, query: str, parameters: Sequence[Any] | Mapping[str, Any], deadline: float, *, is_last: bool = False
    ) -> list[Row]:
        loop = asyncio.get_running_loop()
        async with self._pool.connection(timeout=deadline - loop.time()) as connection:
            timer = loop.call_at(deadline, _cut, connection)
            try:
                cursor = await connection.execute(query, parameters)
                return await cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError as error:
                if connection.broken and loop.time() >= deadline:
                    raise psycopg.OperationalError(f"no answer within {QUERY_SECONDS} s") from error
                if connection.broken and not is_last:
                    raise _StaleConnection from error
                raise
            finally:
                timer.cancel()

    async def _heal(self) -> None:
        """While the database is away, asks for it: demand is what makes the pool connect again."""
        while True:
            if not self.is_up:
                with contextlib.suppress(StoreUnavailable):
                    await self.run("SELECT 1 FROM plans LIMIT 1")
            await asyncio.sleep(PING_SECONDS)

    def _went_up(self, rows: list[Row]) -> list[Row]:
        if not self.is_up:
            logger.info("✅ Connected to PostgreSQL")
        self.is_up = self.ever_up = True
        self._connect_error = self.last_error = None
        return rows

    def _went_down(self, error: psycopg.Error) -> str:
        why = reason(error)
        if isinstance(error, PoolTimeout):
            why = self._connect_error or f"no connection within {QUERY_SECONDS} s"
        if self.is_up or self.last_error is None:
            logger.warning(f"PostgreSQL is away: {why}")
        self.is_up = False
        self.last_error = why
        return why

    def _note_connect_error(self, error: psycopg.Error) -> None:
        self._connect_error = reason(error)


class _StaleConnection(Exception):
    """The server had closed it while it lay in the pool."""


def _options(url: str) -> dict[str, Any]:
    """How to connect. The server ends a statement by itself too, lest abandoned ones pile up behind a lock."""
    own = conninfo_to_dict(url).get("options") or ""
    return {
        "autocommit": True,
        "connect_timeout": CONNECT_SECONDS,
        "options": f"{own} -c statement_timeout={STATEMENT_SECONDS * 1000:.0f}".strip(),
        "prepare_threshold": None,  # a pooler in transaction mode may hand the next statement to another session
        "keepalives_idle": 10,
        "keepalives_interval": 3,
        "keepalives_count": 3,
    }


def _cut(connection: Connection) -> None:
    """Ends the connection under a statement that is late. Unlike a cancellation this needs no answer of the server."""
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def _cut_all(connections: Sequence[Connection]) -> None:
    for connection in connections:
        _cut(connection)


def reason(error: psycopg.Error) -> str:
    """One line for a person. It may name hosts and users, never a password."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return f"{line} (was `python -m db migrate` run?)" if isinstance(error, psycopg.errors.UndefinedTable) else line


@contextlib.asynccontextmanager
async def transaction(url: str, *, name: str) -> AsyncIterator[Connection]:
    """One transaction on a connection of its own, for a command that does one thing and ends.

    Commits at the end of the block, rolls back on an exception. Raises StoreUnavailable when the database cannot be
    reached in CONNECT_SECONDS, or refuses a statement.
    """
    try:
        async with await psycopg.AsyncConnection.connect(
            url, connect_timeout=CONNECT_SECONDS, application_name=name
        ) as connection:
            yield connection
    except psycopg.Error as error:
        raise StoreUnavailable(reason(error)) from error
