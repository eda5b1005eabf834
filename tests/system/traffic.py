"""Clients that never rest, behind a router of their own: for what must not cost a request."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Self

from tests.gateway import STATIC_KEY, Client, Gateway, until

CLIENTS = 6
KEYS = [f"sk_load_{number}" for number in range(CLIENTS)]
VALID_API_KEYS = ",".join([f"{STATIC_KEY}:org_1:premium", *(f"{key}:{key}:enterprise" for key in KEYS)])
"""What the gateways must let in. Each client is an organization: none gets near its limit."""
RETRY_SECONDS = 0.02


class Traffic:
    """A context manager: threads that ask one or several gateways for /x, until its end.

    Each connection goes to the next gateway that takes it, as from a router. A third of the clients connects for each
    request, a third keeps its connections busy, a third keeps them with longer pauses. `answered`: the ids of requests
    that got a 200, in any order. `lost`: what became of the others; `turned_away`: how often every gateway refused.
    """

    def __init__(self, *gateways: Gateway) -> None:
        self.answered: list[str] = []
        self.lost: list[str] = []
        self.turned_away = 0
        self._gateways = gateways
        self._turn = itertools.count()
        self._done = threading.Event()
        kinds = [(False, 0.005), (True, 0.005), (True, 0.2)]
        self._threads = [
            threading.Thread(target=self._run, args=(key, *kinds[number % 3])) for number, key in enumerate(KEYS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.go_on()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(20)

    def go_on(self, count: int = 100) -> None:
        """Returns when so many more requests were answered."""
        wanted = len(self.answered) + count
        until(lambda: len(self.answered) >= wanted, f"{count} more answers")

    def _run(self, key: str, is_kept: bool, pause_seconds: float) -> None:
        request = f"GET /x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
        while not self._done.is_set():
            client = self._connect()
            if client is None:
                self.turned_away += 1
                self._done.wait(RETRY_SECONDS)
                continue
            with client:
                while self._ask(client, request) and not self._done.wait(pause_seconds) and is_kept:
                    pass

    def _connect(self) -> Client | None:
        """To the gateway whose turn it is, or to another; None when all refuse: nothing was sent, nothing is lost."""
        first = next(self._turn)
        for number in range(len(self._gateways)):
            try:
                return self._gateways[(first + number) % len(self._gateways)].client()
            except ConnectionRefusedError:
                continue
        return None

    def _ask(self, client: Client, request: bytes) -> bool:
        """One request; whether the connection may carry another."""
        began = time.monotonic()
        try:
            reply = client.send(request).reply()
        except (AssertionError, OSError) as error:
            self.lost.append(f"{error!r} after {time.monotonic() - began:.3f} s")
            return False
        if reply.status == 200:
            self.answered.append(reply["X-Request-ID"])
        else:
            self.lost.append(repr(reply))
        return reply.all("Connection") != ["close"]
