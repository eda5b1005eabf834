"""What is written in one turn of the loop: in order, at its end, and to nobody who has gone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.relay.outbox import Outbox


class Line(asyncio.Transport):
    """Notes what is written, with its name, in a list that several share."""

    def __init__(self, name: str, written: list[tuple[str, bytes]], then: Callable[[], object] | None = None) -> None:
        super().__init__()
        self.name = name
        self.is_over = False
        self._written = written
        self._then = then

    def is_closing(self) -> bool:
        return self.is_over

    def write(self, data: Any) -> None:
        self._written.append((self.name, data))
        if self._then is not None:
            self._then()


async def a_turn() -> None:
    """Until the loop has looked at its sockets, and whoever it called has run."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


class CountingLoop:
    """The running loop, which counts what is called soon."""

    def __init__(self) -> None:
        self.calls = 0

    def call_soon(self, callback: Callable[[], object]) -> asyncio.Handle:
        self.calls += 1
        return asyncio.get_running_loop().call_soon(callback)


@given(st.lists(st.sampled_from("abc"), max_size=30), st.sets(st.integers(0, 30)))
def test_order_is_kept_within_and_across_connections(names: list[str], flushes: set[int]) -> None:
    """Whatever is written to whom, and flushed when: everything goes out once, in the order in which it came."""

    async def scene() -> None:
        written: list[tuple[str, bytes]] = []
        lines = {name: Line(name, written) for name in "abc"}
        outbox = Outbox(asyncio.get_running_loop())
        wanted = [(name, b"%d" % number) for number, name in enumerate(names)]
        for number, (name, data) in enumerate(wanted):
            outbox.write(lines[name], data)
            if number in flushes:
                outbox.flush()
                assert written == wanted[: number + 1]
        await a_turn()
        assert written == wanted

    asyncio.run(scene())


async def test_nothing_goes_out_before_the_turn_has_ended() -> None:
    """What is written waits for everything else of its turn; the next turn finds it sent."""
    written: list[tuple[str, bytes]] = []
    outbox = Outbox(asyncio.get_running_loop())
    one, other = Line("one", written), Line("other", written)
    loop = asyncio.get_running_loop()
    seen: list[int] = []
    loop.call_soon(lambda: outbox.write(one, b"1"))
    loop.call_soon(lambda: outbox.write(other, b"2"))
    loop.call_soon(lambda: seen.append(len(written)))
    await a_turn()
    assert seen == [0]
    await a_turn()
    assert written == [("one", b"1"), ("other", b"2")]


async def test_one_flush_a_turn() -> None:
    """However many writes a turn has, the loop is asked for one flush, in two steps; without writes for none."""
    loop: Any = CountingLoop()
    written: list[tuple[str, bytes]] = []
    outbox = Outbox(loop)
    line = Line("a", written)
    for turn in range(1, 4):
        for _ in range(10):
            outbox.write(line, b"x")
        assert loop.calls == 2 * turn - 1
        await a_turn()
        assert len(written) == 10 * turn
    await a_turn()
    assert loop.calls == 6


async def test_who_has_gone_meanwhile_is_skipped() -> None:
    """A connection that closes before the flush, during it even, gets no byte; the others lose none."""
    written: list[tuple[str, bytes]] = []
    outbox = Outbox(asyncio.get_running_loop())
    gone, killed = Line("gone", written), Line("killed", written)
    killer = Line("killer", written, lambda: setattr(killed, "is_over", True))
    for line in (gone, killer, killed, killer):
        outbox.write(line, b"x")
    gone.is_over = True
    outbox.flush()
    assert written == [("killer", b"x"), ("killer", b"x")]


async def test_what_is_written_during_a_flush_goes_out_with_the_next() -> None:
    """A write that a write causes is neither lost nor sent in front of others: it waits for the next turn."""
    written: list[tuple[str, bytes]] = []
    outbox = Outbox(asyncio.get_running_loop())
    last = Line("last", written)
    echo = Line("echo", written, lambda: outbox.write(last, b"again"))
    outbox.write(echo, b"1")
    outbox.write(last, b"2")
    outbox.flush()
    assert written == [("echo", b"1"), ("last", b"2")]
    await a_turn()
    await a_turn()
    assert written == [("echo", b"1"), ("last", b"2"), ("last", b"again")]


async def test_a_write_that_raises_costs_no_other_connection_its_bytes(caplog: pytest.LogCaptureFixture) -> None:
    """One transport refuses the write: it ends, and what others were sent in the same turn arrives all the same."""
    loop = asyncio.get_running_loop()
    (ours, broken), (mine, healthy) = socket.socketpair(), socket.socketpair()
    with ours, broken, mine, healthy:
        for end in (broken, healthy):
            end.setblocking(False)
        first, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        second, _ = await loop.create_connection(asyncio.Protocol, sock=mine)
        first.write_eof()
        outbox = Outbox(loop)
        outbox.write(first, b"lost")
        outbox.write(second, b"kept")
        assert await asyncio.wait_for(loop.sock_recv(healthy, 16), 5) == b"kept"
        assert first.is_closing()
        assert "a write failed" in caplog.text
        second.close()


class Sender:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.dropped = 0

    def note_dropped(self) -> None:
        self.dropped += 1


async def test_who_sends_is_told_of_what_is_dropped_and_of_nothing_else() -> None:
    """A write whose connection ended before the flush is told to its sender; one that went out is not."""
    written: list[tuple[str, bytes]] = []
    outbox = Outbox(asyncio.get_running_loop())
    ended, lasting = Line("ended", written), Line("lasting", written)
    lost, sent = Sender(), Sender()
    outbox.write(ended, b"1", lost)
    outbox.write(ended, b"2")
    outbox.write(lasting, b"3", sent)
    ended.is_over = True
    await a_turn()
    lasting.is_over = True
    await a_turn()
    assert written == [("lasting", b"3")]
    assert (lost.dropped, sent.dropped) == (1, 0)
