"""Ending a connection with RST, for who reads until the end: a FIN would pass for the end of what was sent."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

_LINGER_NOT: Final = struct.pack("ii", 1, 0)


def reset(transport: asyncio.Transport) -> None:
    """Ends it at once; nothing that was not sent yet is. Does nothing to one that has ended."""
    sock = transport.get_extra_info("socket")
    if sock is not None:  # it is None once the transport has closed
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    transport.abort()
