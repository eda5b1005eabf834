"""A backend that costs as little as Python can: what benches put behind a gateway. `python -m tools.origin --port N`.

`GET /bytes/N` streams N bytes; every other request is answered with 108 bytes of JSON once its body, which is counted
and thrown away, has ended.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Final, cast

import click
import httptools
import uvloop

BODY: Final = (
    b'{"message":"from the bench backend","organization":"org_0","items":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}'
)
ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
BLOCK: Final = bytes(65_536)
LARGE: Final = b"/bytes/"


class Origin(asyncio.Protocol):
    """One connection. Requests come one after the other: a gateway does not pipeline."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._left = 0
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_url(self, target: bytes) -> None:
        self._target = target

    def on_message_complete(self) -> None:
        at = self._target.find(LARGE)
        if at < 0:
            self._transport.write(ANSWER)
            return
        self._left = int(self._target[at + len(LARGE) :])
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self._left)
        self._write_on()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._write_on()

    def _write_on(self) -> None:
        while self._left and not self._is_paused:
            block = BLOCK[: self._left]
            self._left -= len(block)
            self._transport.write(block)


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Origin, "127.0.0.1", port, backlog=2048)
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    await over.wait()
    server.close()


@click.command()
@click.option("--port", required=True, type=click.IntRange(1, 65535))
def main(port: int) -> None:
    """Answers every request on loopback with the same few bytes, or with as many as the path asks for."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(port))
    except OSError as failure:
        raise click.ClickException(f"cannot listen on port {port}: {failure.strerror}") from None


if __name__ == "__main__":
    main(prog_name="python -m tools.origin")
