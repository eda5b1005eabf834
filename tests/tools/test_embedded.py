"""What the servers for development and tests stand on."""

from __future__ import annotations

import socket

import pytest

from tools.embedded import ReservedPort


def test_a_reserved_port_is_for_its_server_alone() -> None:
    """Nobody listens there until the server that it is for does, which may come and go; who shares nothing is refused,
    as the kernel refuses to give it to who asks for any port."""
    reserved = ReservedPort()
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", reserved.number), timeout=5)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", reserved.number))
        with socket.create_server(("127.0.0.1", reserved.number)):
            socket.create_connection(("127.0.0.1", reserved.number), timeout=5).close()
