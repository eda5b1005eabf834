from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import trustme
from loguru import logger

from app.core.model import RedisAddress
from app.core.redis.link import Command, RedisLink, RedisRefusal, RedisUnavailable, Subscribed
from tests.eventually import eventually
from tools.embedded import RedisServer


def link_to(server: RedisServer) -> RedisLink:
    return RedisLink(RedisAddress("127.0.0.1", server.port), name="test")


@pytest.fixture
async def link(redis_url: str, redis_server: RedisServer) -> AsyncIterator[RedisLink]:
    async with link_to(redis_server) as link:
        assert await link.wait_up(5)
        yield link


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What the code under test says, one text a line."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
    yield lines
    logger.remove(sink)


async def ping(link: RedisLink, seconds: float = 1.0) -> None:
    assert await link.run([("PING",)], seconds) == [b"PONG"]


async def test_answers_come_in_order_and_refusals_in_their_places(link: RedisLink) -> None:
    """A batch brings every answer at its place, and a refused command is a value with Redis's own code."""
    await link.run([("SET", "text", "x")], 1)
    answers = await link.run(
        [("GET", b"text"), ("LPUSH", "text", 1), ("EVALSHA", "0" * 40, 0), ("NOSUCH",), ("INCRBY", "n", 5)], 1
    )
    assert answers[0] == b"x"
    assert answers[4] == 5
    codes = [answer.code for answer in answers if isinstance(answer, RedisRefusal)]
    assert codes == ["WRONGTYPE", "NOSCRIPT", "ERR"]


async def test_not_connected_fails_at_once_and_says_why(own_redis: RedisServer) -> None:
    """Without a connection `run` waits for nothing: it raises, having sent nothing."""
    own_redis.stop()
    async with link_to(own_redis) as link:
        await eventually(lambda: link.last_error)
        with pytest.raises(RedisUnavailable, match="refused") as caught:
            await asyncio.wait_for(link.run([("PING",)], 60), 0.1)
        assert not caught.value.sent
        assert not await link.wait_up(0.01)


async def test_late_answer_is_never_taken_for_anothers(own_redis: RedisServer) -> None:
    """After a time-out the connection is another one, so what the old one still brings belongs to nobody."""
    async with link_to(own_redis) as link:
        await link.wait_up(5)
        own_redis.freeze()
        with pytest.raises(RedisUnavailable, match="50 ms") as caught:
            await link.run([("ECHO", "late")], 0.05)
        assert caught.value.sent
        assert not link.is_up
        own_redis.thaw()
        assert await link.wait_up(5)
        assert await link.run([("ECHO", "mine")], 1) == [b"mine"]


async def test_cancelled_caller_harms_no_other(link: RedisLink) -> None:
    """A caller that is cancelled while it waits leaves the connection and everybody else's answers as they are."""
    await link.run([("CLIENT", "PAUSE", 100)], 1)
    callers = [asyncio.create_task(link.run([("ECHO", str(number))], 2)) for number in range(5)]
    await asyncio.sleep(0)  # each has sent
    callers[1].cancel()
    callers[3].cancel()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert answers[0::2] == [[b"0"], [b"2"], [b"4"]]
    assert link.is_up


async def test_lost_connection_ends_what_waits_and_comes_back(own_redis: RedisServer, logged: list[str]) -> None:
    """A server that dies ends the batch under way as sent; the link comes back by itself and logs each once."""
    async with link_to(own_redis) as link:
        await link.wait_up(5)
        blocked = asyncio.create_task(link.run([("BLPOP", "nothing", 0)], 30))
        await asyncio.sleep(0)
        own_redis.kill()
        with pytest.raises(RedisUnavailable) as caught:
            await blocked
        assert caught.value.sent
        await eventually(lambda: link.last_error and "refused" in link.last_error)
        own_redis.start()
        assert await link.wait_up(5)
        await ping(link)
    assert [line.split(":")[0] for line in logged] == [
        "Redis connection test is down",
        "Redis connection test is up again",
    ]


async def test_commands_cut_off_have_their_own_places(own_redis: RedisServer) -> None:
    """When the connection breaks within a batch, what was answered counts and the rest is marked as unanswered."""
    async with link_to(own_redis) as link:
        await link.wait_up(5)
        answers = await link.run([("ECHO", "in time"), ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")], 2)
        assert answers[0] == b"in time"
    async with link_to(own_redis) as link:
        await link.wait_up(5)
        lost = await link.run([("ECHO", "x"), ("QUIT",), ("ECHO", "y")], 2)
        assert lost[:2] == [b"x", b"OK"]
        assert isinstance(lost[2], RedisUnavailable)


async def test_silent_server_is_given_up_after_a_second() -> None:
    """A server that accepts and says nothing does not hold the link: it reports it and keeps trying."""
    connections = 0

    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(stay_silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with RedisLink(RedisAddress("127.0.0.1", port), name="test") as link:
        await eventually(lambda: connections >= 2)
        assert link.last_error == "the server is silent"
    server.close()
    await server.wait_closed()


async def test_closing_is_quick_in_every_state(own_redis: RedisServer) -> None:
    """Leaving the context does not wait for a server: not while connected, nor in a handshake that hangs."""
    for freeze_first in (False, True):
        if freeze_first:
            own_redis.freeze()
        async with link_to(own_redis) as link:
            await (asyncio.sleep(0.05) if freeze_first else link.wait_up(5))
            own_redis.freeze()
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 0.9
        own_redis.thaw()


async def test_listening_survives_a_restart_and_says_so(own_redis: RedisServer) -> None:
    """Every time the subscription stands anew the listener is told, as it may have missed something meanwhile."""
    heard: list[bytes | Subscribed] = []

    async def listen() -> None:
        async with link_to(own_redis) as link, contextlib.aclosing(link.listen("news")) as messages:
            async for message in messages:
                heard.append(message)  # noqa: PERF401  seen while it grows

    def subscriptions() -> int:
        return sum(isinstance(message, Subscribed) for message in heard)

    listener = asyncio.create_task(listen())
    async with link_to(own_redis) as link:
        await eventually(lambda: subscriptions() == 1)
        await link.run([("PUBLISH", "news", "one")], 1)
        await eventually(lambda: b"one" in heard)
        own_redis.kill()
        own_redis.start()
        await eventually(lambda: subscriptions() == 2)
        await link.wait_up(5)
        await link.run([("PUBLISH", "news", "two")], 1)
        await eventually(lambda: heard[-1] == b"two")
    assert len(heard) == 4
    listener.cancel()
    await asyncio.wait({listener})


async def test_listener_notices_a_server_that_hangs(own_redis: RedisServer) -> None:
    """A hung server sends no end of file: the pings find it within about three seconds, and listening starts anew."""
    async with link_to(own_redis) as link, contextlib.aclosing(link.listen("news")) as messages:
        assert isinstance(await anext(messages), Subscribed)
        own_redis.freeze()
        await eventually(lambda: not link.is_up, seconds=8)
        own_redis.thaw()
        assert isinstance(await asyncio.wait_for(anext(messages), 15), Subscribed)


async def test_a_late_answer_costs_the_connection_and_no_line(own_redis: RedisServer, logged: list[str]) -> None:
    """A connection that a caller gave up is replaced unannounced, but whoever relies on its memory is told first."""
    async with link_to(own_redis) as link:
        await link.wait_up(5)
        lost: list[tuple[str, bool]] = []
        link.on_lost.append(lambda reason: lost.append((reason, link.is_up)))
        with pytest.raises(RedisUnavailable):
            await link.run([("BLPOP", "nothing", 0)], 0.05)
        await eventually(lambda: lost)
        assert await link.wait_up(5)
        assert lost == [("no answer within 50 ms", False)]
    assert logged == []


async def test_who_is_called_back_is_told_of_silence(own_redis: RedisServer) -> None:
    """A batch that is not answered in its time comes back as unavailable, and costs the connection."""
    told: list[object] = []
    async with link_to(own_redis) as link:
        assert await link.wait_up(5)
        own_redis.freeze()
        link.begin([("PING",)], 0.01, told.append)
        await eventually(lambda: told)
        assert not link.is_up
        own_redis.thaw()
    assert [type(answer) for answer in told] == [RedisUnavailable]


async def test_who_is_called_back_is_told_when_the_link_ends(own_redis: RedisServer) -> None:
    """A batch that is under way when its link is closed comes back: who counts its batches would wait for ever."""
    told: list[object] = []
    async with link_to(own_redis) as link:
        assert await link.wait_up(5)
        own_redis.freeze()
        link.begin([("PING",)], 60, told.append)
    await eventually(lambda: told)
    own_redis.thaw()
    assert [type(answer) for answer in told] == [RedisUnavailable]


async def test_who_breaks_when_told_breaks_no_other(own_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """A caller that raises at its answer is told to the loop; the connection and the batches behind it go on."""
    told: list[object] = []
    async with link_to(own_redis) as link:
        assert await link.wait_up(5)
        link.begin([("ECHO", "a")], 5, lambda _: 1 // 0)
        link.begin([("ECHO", "b")], 5, told.append)
        await eventually(lambda: told)
        assert link.is_up
    assert told == [[b"b"]]
    assert "an answer of Redis's broke" in caplog.text


async def test_password_and_database(own_redis: RedisServer) -> None:
    """The password and the database number of the address are used, and a wrong password is told as what it is."""
    async with link_to(own_redis) as link:
        await link.wait_up(5)
        await link.run([("CONFIG", "SET", "requirepass", "p%40ss"), ("SELECT", 3), ("SET", "where", "three")], 1)
    address = RedisAddress("127.0.0.1", own_redis.port, db=3, password="p%40ss")
    async with RedisLink(address, name="test") as link:
        assert await link.wait_up(5)
        assert await link.run([("GET", "where")], 1) == [b"three"]
    async with RedisLink(RedisAddress("127.0.0.1", own_redis.port, password="wrong"), name="test") as link:
        await eventually(lambda: link.last_error and "invalid username-password" in link.last_error)


async def test_unix_socket(short_folder: Path) -> None:
    """An address with a path is a unix socket."""
    path = short_folder / "r.sock"
    with RedisServer(short_folder / "redis-unix", None, "--unixsocket", str(path)):
        async with RedisLink(RedisAddress(path=str(path)), name="test") as link:
            assert await link.wait_up(5)
            await ping(link)


@contextlib.asynccontextmanager
async def tls_in_front_of(server: RedisServer, authority: trustme.CA) -> AsyncIterator[int]:
    """A TLS port that leads to `server`: the wheel's Redis has no TLS of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(copy(reader, behind_writer), copy(behind_reader, writer))

    listener = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    yield listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()


async def test_tls_with_a_self_signed_certificate(redis_url: str, redis_server: RedisServer) -> None:
    """rediss:// refuses a certificate that nobody vouches for, and takes it when verification is switched off."""
    async with tls_in_front_of(redis_server, trustme.CA()) as port:
        async with RedisLink(RedisAddress("localhost", port, tls=True), name="test") as link:
            await eventually(lambda: link.last_error)
            assert not link.is_up
            assert "CERTIFICATE_VERIFY_FAILED" in str(link.last_error).upper()
        async with RedisLink(RedisAddress("localhost", port, tls=True, verify=False), name="test") as link:
            assert await link.wait_up(5)
            await ping(link)


async def test_failed_over_server_is_left(own_redis: RedisServer) -> None:
    """`reset` replaces a connection that works but leads to the wrong server, without a pause once it was stable."""
    async with link_to(own_redis) as link:
        await link.wait_up(5)
        (before,) = await link.run([("CLIENT", "ID")], 1)
        link.reset("a replica now")
        assert not link.is_up
        assert await link.wait_up(5)
        (after,) = await link.run([("CLIENT", "ID")], 1)
        assert after != before


# --- `begin`: the same for who is called back ---

Told = list[list[Any] | RedisUnavailable]


def begin(link: RedisLink, commands: list[Command], seconds: float = 5.0) -> Told:
    """Where the answers are put."""
    told: Told = []
    link.begin(commands, seconds, told.append)
    return told


async def test_begin_without_a_connection_calls_back_at_once(own_redis: RedisServer) -> None:
    """Before `begin` returns the caller knows that nothing was sent, and why."""
    assert [str(each) for each in begin(RedisLink(RedisAddress(), name="test"), [("PING",)])] == ["not connected yet"]
    async with link_to(own_redis) as link:
        await link.wait_up(5)
        link.reset("a replica now")
        (failure,) = begin(link, [("PING",)])
        assert isinstance(failure, RedisUnavailable)
        assert (str(failure), failure.sent) == ("a replica now", False)


async def test_begin_calls_back_once_with_the_answers(link: RedisLink) -> None:
    """Answers come in order, refusals in their places, to each batch its own, also next to `run`."""
    one = begin(link, [("ECHO", "1"), ("NOSUCH",)])
    ran = asyncio.create_task(link.run([("ECHO", "2")], 5))
    other = begin(link, [("ECHO", "3")])
    assert one == other == []
    await eventually(lambda: other)
    assert await ran == [b"2"]
    assert other == [[b"3"]]
    ((echoed, refused),) = cast("list[list[Any]]", one)
    assert echoed == b"1"
    assert isinstance(refused, RedisRefusal)
    assert link.is_up


async def test_begin_is_told_of_a_time_out_once(own_redis: RedisServer) -> None:
    """After its time-out the batch has failed as sent, and no late answer is told; the connection is another one."""
    async with link_to(own_redis) as link:
        await link.wait_up(5)
        own_redis.freeze()
        told = begin(link, [("ECHO", "late")], 0.05)
        await eventually(lambda: told)
        own_redis.thaw()
        assert await link.wait_up(5)
        assert await link.run([("ECHO", "mine")], 1) == [b"mine"]
        (failure,) = told
        assert isinstance(failure, RedisUnavailable)
        assert (str(failure), failure.sent) == ("no answer within 50 ms", True)


async def test_begin_looks_once_more_before_it_gives_up(link: RedisLink) -> None:
    """A loop that was busy past the time-out takes the answer that lies in the socket, and keeps the connection."""
    (before,) = await link.run([("CLIENT", "ID")], 5)
    told = begin(link, [("ECHO", "in time")], 0.02)
    time.sleep(0.5)  # noqa: ASYNC251 - the loop is to be busy for longer than Redis takes on any machine
    await eventually(lambda: told)
    assert told == [[b"in time"]]
    assert await link.run([("CLIENT", "ID")], 5) == [before]


async def test_begin_is_told_what_was_cut_off(own_redis: RedisServer) -> None:
    """A connection that breaks within a batch leaves what was answered; one that breaks before it, one failure."""
    async with link_to(own_redis) as link:
        await link.wait_up(5)
        told = begin(link, [("ECHO", "x"), ("QUIT",), ("ECHO", "y")])
        await eventually(lambda: told)
        (answers,) = cast("list[list[Any]]", told)
        assert answers[:2] == [b"x", b"OK"]
        assert isinstance(answers[2], RedisUnavailable)
        assert answers[2].sent
        assert await link.wait_up(5)
        told = begin(link, [("BLPOP", "nothing", 0)], 30)
        await asyncio.sleep(0)
        own_redis.kill()
        await eventually(lambda: told)
        (failure,) = told
        assert isinstance(failure, RedisUnavailable)
        assert failure.sent
