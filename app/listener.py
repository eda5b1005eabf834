"""The public listener: one socket, made before the workers are forked and shared by all of them, and its end.

What a worker does not accept, another does: a dead, hung or ended one takes no connection with it that it had not
accepted. Only the last close of the socket resets what waits in its queue, which is why the queue is emptied first.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
import sys
from typing import Final

BACKLOG: Final = 2_048
SETTLE_SECONDS: Final = 0.25
"""For handshakes that were under way: more than a round trip between a router and its gateways."""
EMPTY_SECONDS: Final = 2.0
"""At most, until the queue is empty. Accepting everything that fits into it takes a small part of that."""
LOOK_SECONDS: Final = 0.02

_SO_ATTACH_FILTER: Final = 26
_TCP_INFO_BYTES: Final = 104
_TCP_INFO_UNACKED: Final = 24
"""Where Linux's struct tcp_info has the number of connections that wait to be accepted, if the socket listens."""
_DROP_SYN: Final = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte with the flags of the TCP header (RFC 9293 section 3.1)
        (0x54, 0, 0, 0x12),  # keep SYN and ACK
        (0x15, 0, 1, 0x02),  # SYN alone begins a handshake:
        (0x06, 0, 0, 0),  # dropped
        (0x06, 0, 0, 0xFFFFFFFF),  # everything else passes
    )
)


def listen(port: int) -> socket.socket:
    """Raises OSError when the port cannot be had."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("0.0.0.0", port))  # noqa: S104 - the public gateway is for everybody
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


async def empty(listener: socket.socket) -> None:
    """Begins no more handshakes and returns when every connection was accepted, so that closing it loses none.

    For the end of all workers: they share the socket, and with it this refusal. Somebody must go on accepting
    meanwhile. A client whose SYN is dropped tries again after a second, and finds the port closed, or a successor's.
    Elsewhere than on Linux the close loses what connects in the microseconds before it.
    """
    loop = asyncio.get_running_loop()
    _drop_handshakes(listener)
    began = loop.time()
    await asyncio.sleep(SETTLE_SECONDS)
    while waiting_count(listener) and loop.time() - began < EMPTY_SECONDS:  # noqa: ASYNC110 - the kernel signals nothing
        await asyncio.sleep(LOOK_SECONDS)


def _drop_handshakes(listener: socket.socket) -> None:
    """Attaches a classic BPF program, which needs no privilege. The queue and established connections stay."""
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(_DROP_SYN, len(_DROP_SYN))
    filter_ = struct.pack("HP", len(_DROP_SYN) // 8, ctypes.addressof(program))
    with contextlib.suppress(OSError):  # a sandbox may not know the option
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)


def waiting_count(listener: socket.socket) -> int:
    """Connections that are made and wait to be accepted; 0 where the system does not tell."""
    if sys.platform != "linux":
        return 0
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    return int(struct.unpack_from("I", info, _TCP_INFO_UNACKED)[0])
