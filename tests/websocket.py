"""A WebSocket backend in a thread, and clients that reach it through a gateway: both other people's implementation."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from tests.gateway import ROOT, STATIC_KEY, Gateway, until


class WebSocketBackend:
    """Answers each message with itself. `connections` are those that were opened, in order; `closes` how they ended.

    "close CODE REASON" makes it close, "pour COUNT SIZE" send so many messages of that size. `options` are `serve`'s. A
    context manager.
    """

    def __init__(self, **options: Any) -> None:
        self._server = serve(self._echo, "127.0.0.1", 0, process_response=self._greeted, **options)
        self.port: int = self._server.socket.getsockname()[1]
        self.connections: queue.Queue[ServerConnection] = queue.Queue()
        self.open: set[ServerConnection] = set()
        self.closes: queue.Queue[tuple[int, str]] = queue.Queue()
        self.poured = [0]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _greeted(self, connection: ServerConnection, _: Request, response: Response) -> None:
        """Before the client hears of it: a test can be over before the thread that serves it has begun."""
        if response.status_code == 101:
            self.open.add(connection)

    def _echo(self, connection: ServerConnection) -> None:
        self.connections.put(connection)
        with contextlib.suppress(ConnectionClosed):
            for message in connection:
                self._answer(connection, message)
        self.closes.put((connection.close_code or 0, connection.close_reason or ""))
        self.open.discard(connection)

    def forget(self) -> None:
        """Waits until every connection has ended, and forgets them."""
        until(lambda: not self.open, "every connection to end")
        for seen in (self.connections, self.closes):
            while not seen.empty():
                seen.get()

    def _answer(self, connection: ServerConnection, message: str | bytes) -> None:
        verb, *words = message.split(" ", 2) if isinstance(message, str) else [""]
        if verb == "close":
            connection.close(int(words[0]), words[1])
        elif verb == "pour":
            for _ in range(int(words[0])):
                connection.send("x" * int(words[1]))
                self.poured[0] += 1
        else:
            connection.send(message)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(10)


def main() -> None:
    """A backend as a process of its own, which can be killed: says its port and serves until then."""
    with WebSocketBackend() as backend:
        print(backend.port, flush=True)
        threading.Event().wait()


@contextlib.contextmanager
def backend_process() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`main` in a process, and its port. Killed at the end."""
    command = [sys.executable, "-m", "tests.websocket"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


@contextlib.contextmanager
def opened(gateway: Gateway, key: str = STATIC_KEY, **options: Any) -> Iterator[ClientConnection]:
    """A WebSocket through the gateway. `options` are `connect`'s."""
    with connect(
        f"ws://127.0.0.1:{gateway.port}/api/socket",
        additional_headers={"Authorization": f"Bearer {key}"},
        proxy=None,
        **options,
    ) as client:
        yield client


def closed(client: ClientConnection) -> tuple[int, str]:
    """How the other side ended it, waited for: the code and reason of its Close."""
    try:
        while True:
            client.recv(timeout=20)
    except ConnectionClosed as end:
        return (end.rcvd.code, end.rcvd.reason) if end.rcvd is not None else (1006, "")


if __name__ == "__main__":
    main()
