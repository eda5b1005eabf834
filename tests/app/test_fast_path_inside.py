"""The fast path inside one process: what cannot be brought about from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.app.inside import serving
from tests.backend import Backend, answer_ok

KEY = "sk_test_0123456789abcdef0123456789abcdef"


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()


class Log:
    """Takes lines, but for those of `/a/bad`."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        if b"/a/bad" in line:
            raise ZeroDivisionError
        self.lines.append(line)


@pytest.fixture
async def log() -> Log:
    return Log()


@pytest.fixture
async def port(log: Log) -> AsyncIterator[int]:
    """A worker's app in this loop, before one backend."""
    with Backend(answer_ok) as backend:
        environment = {"BACKEND_URLS": f"a={backend.url}", "VALID_API_KEYS": f"{KEY}:org:premium"}
        async with serving("fast-path", environment, log.write) as (_, listener):
            yield listener.getsockname()[1]


async def test_no_request_is_answered_twice(port: int, log: Log) -> None:
    """What breaks after an answer ends its connection: another answer would be taken for the next request's."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("/a/warm"))
    await reader.readuntil(b"\r\n\r\n")
    writer.write(request("/a/bad"))
    rest = await asyncio.wait_for(reader.read(), 5)
    assert rest.count(b"HTTP/1.1 ") == rest.count(b"HTTP/1.1 200 ") == 1
    writer.close()
    assert len(log.lines) == 1
