"""Answers whose lines are known: read without llhttp, within the bounds that llhttp's are held to."""

from __future__ import annotations

import time

import pytest

from app.core.errors import BackendUnavailable
from app.core.model import Backend
from app.core.relay.answer_reader import HOPE, HOPELESS_LOOKS
from app.core.relay.known_lines import FIELDS_MAX
from app.core.relay.peer import Peer

BACKEND = Backend("b", "http", "127.0.0.1", 1)
PLAIN = b"HTTP/1.1 200 OK\r\nServer: repeats\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
async def peer() -> Peer:
    return Peer(BACKEND, 5.0, time.monotonic)


def answered(peer: Peer, data: bytes) -> Peer:
    peer.begin(False, None)
    peer.data_received(data)
    return peer


async def test_a_backend_that_turns_to_known_lines_is_noticed(peer: Peer) -> None:
    """However many answers of a connection had new lines: one in 32 is still looked at for known ones."""
    answered(peer, PLAIN)
    for number in range(HOPE + 8):
        assert answered(peer, PLAIN.replace(b"repeats", b"new-%d" % number)).known is None
    looks = [answered(peer, PLAIN).known is not None for _ in range(HOPELESS_LOOKS + 1)]
    assert looks[-1]
    assert all(looks[looks.index(True) :])


async def test_known_fields_are_counted_too(peer: Peer) -> None:
    """An answer with too many fields is refused, also when every one of its lines is known."""
    answered(peer, PLAIN)
    server = b"Server: repeats\r\n"
    most = answered(peer, PLAIN.replace(server, server * (FIELDS_MAX - 1)))
    assert (most.is_complete, len(most.fields)) == (True, FIELDS_MAX)
    more = answered(peer, PLAIN.replace(server, server * FIELDS_MAX))
    assert not more.is_complete
    assert isinstance(more.error, BackendUnavailable)
