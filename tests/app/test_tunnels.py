"""What ends an open tunnel from this side, over real sockets and a real key ring whose database the tests write."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from app.core.keys.credential import digest
from app.core.keys.keyring import AWAY_PAUSE_SECONDS, KeyRing
from app.core.model import Change
from app.core.relay.frames import close_frame
from app.core.relay.tunnel import Tunnel
from app.tunnels import LOOK_SECONDS, READS_AT_ONCE, Tunnels
from tests.core.loader import Database, credential, key
from tests.eventually import eventually

TWO_LOOKS = 2.5 * LOOK_SECONDS


class Opened:
    """A tunnel between two socket pairs. `client` is the outer end of one of them."""

    def __init__(self, is_websocket: bool = True) -> None:
        loop = asyncio.get_running_loop()
        self.has_ended = False
        self.tunnel = Tunnel(is_websocket=is_websocket, clock=loop.time, on_end=self._note)
        self.client, self._inner_client = socket.socketpair()
        self.backend, self._inner_backend = socket.socketpair()
        for outer in (self.client, self.backend):
            outer.setblocking(False)

    def _note(self) -> None:
        self.has_ended = True

    async def join(self) -> None:
        loop = asyncio.get_running_loop()
        client, _ = await loop.create_connection(lambda: self.tunnel.client, sock=self._inner_client)
        backend, _ = await loop.create_connection(lambda: self.tunnel.backend, sock=self._inner_backend)
        self.tunnel.join((client, b""), (backend, b""))

    async def heard(self) -> bytes:
        """What the client was sent until the end of it."""
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := await asyncio.get_running_loop().sock_recv(self.client, 65_536):
                data += piece
                if data.startswith(b"\x88"):
                    break
        return data

    def close(self) -> None:
        self.tunnel.abort()
        for outer in (self.client, self.backend):
            outer.close()


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
async def ring(database: Database) -> AsyncIterator[KeyRing]:
    async with KeyRing(database.load, database.load_many, {}, 900) as ring:
        yield ring


@pytest.fixture
async def tunnels(ring: KeyRing) -> AsyncIterator[Tunnels]:
    async with Tunnels(ring, idle_seconds=60) as tunnels:
        yield tunnels


async def opened(tunnels: Tunnels, secret: bytes, is_websocket: bool = True) -> Opened:
    made = Opened(is_websocket)
    await made.join()
    tunnels.add(made.tunnel, secret, "id")
    return made


def revoke(database: Database, ring: KeyRing, number: int) -> None:
    """As an operator does: the row changes, then the workers are told."""
    database.rows[digest(key(number))] = replace(credential(number), revoked=True)
    ring.apply([Change("key", f"key-{number}")])


async def test_a_revoked_key_ends_its_own_tunnels(tunnels: Tunnels, ring: KeyRing, database: Database) -> None:
    """Those of other keys stay; the tunnel's end is told to the client with the contract's own words."""
    first, second = database.hold_key(1), database.hold_key(2)
    await ring.fetch(first)
    ended, kept = await opened(tunnels, first), await opened(tunnels, second)
    revoke(database, ring, 1)
    async with asyncio.timeout(15):
        assert await ended.heard() == close_frame(1008, "API key has been revoked")
    assert not kept.tunnel.is_closing
    for each in (ended, kept):
        each.close()


async def test_a_deleted_key_ends_its_tunnels(tunnels: Tunnels, ring: KeyRing, database: Database) -> None:
    """A key that the database does not know any more is nobody's."""
    made = await opened(tunnels, database.hold_key(1))
    database.rows.clear()
    ring.apply([Change("key", "key-1")])
    async with asyncio.timeout(15):
        assert await made.heard() == close_frame(1008, "invalid API key")
    made.close()


async def test_a_protocol_without_words_is_reset(tunnels: Tunnels, ring: KeyRing, database: Database) -> None:
    """Where no Close can be said, the connections end at once, both of them."""
    made = await opened(tunnels, database.hold_key(1), is_websocket=False)
    revoke(database, ring, 1)
    await eventually(lambda: made.has_ended)
    made.close()


async def test_while_the_database_is_away_nothing_is_known_against_a_key(
    tunnels: Tunnels, ring: KeyRing, database: Database
) -> None:
    """A changed key whose row cannot be read keeps its tunnel, and loses it when the database is back."""
    made = await opened(tunnels, database.hold_key(1))
    database.is_away = True
    revoke(database, ring, 1)
    await asyncio.sleep(TWO_LOOKS)  # in which nothing may happen
    assert not made.tunnel.is_closing
    database.is_away = False
    async with asyncio.timeout(AWAY_PAUSE_SECONDS + 5):
        assert await made.heard() == close_frame(1008, "API key has been revoked")
    made.close()


async def test_an_open_tunnel_keeps_its_key_in_memory(tunnels: Tunnels, ring: KeyRing, database: Database) -> None:
    """A tunnel is a use of its key: refreshes read the key again instead of dropping it, and no look asks for it."""
    secret = database.hold_key(1)
    await ring.fetch(secret)
    made = await opened(tunnels, secret)
    for _ in range(3):
        await ring.refresh()
        await asyncio.sleep(TWO_LOOKS)  # until the key was looked at
    assert (len(ring), len(database.asked)) == (1, 1)
    made.close()


async def test_a_flush_asks_for_few_keys_at_a_time(tunnels: Tunnels, ring: KeyRing, database: Database) -> None:
    """With every key in doubt, tunnels do not take the database from the requests that need it too."""
    made = [await opened(tunnels, database.hold_key(number)) for number in range(3 * READS_AT_ONCE)]
    database.is_held = True
    ring.apply([Change("all")])
    await database.wait_for_loads(READS_AT_ONCE)
    await asyncio.sleep(TWO_LOOKS)  # in which no more may come
    assert len(database.asked) == READS_AT_ONCE
    database.is_held = False
    database.release()
    await eventually(lambda: len(database.asked) == len(made))
    await eventually(lambda: len(ring) == len(made))
    assert not any(each.tunnel.is_closing for each in made)
    for each in made:
        each.close()
