"""After a switch of protocols: two connections joined, so that what one side says reaches the other as it is.

Bounded: a side that does not read stops the other. Each side's end, orderly or abrupt, becomes the other's. Only of
WebSockets a little more is known: where a frame ends, so that a Close can be said to both sides.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final, Self

from app.core.relay.frames import FrameFollower, close_frame
from app.core.relay.reset import reset

BUFFER_BYTES_HIGH: Final = 65_536
CLOSE_SECONDS: Final = 2.0
"""For both sides to answer our Close and take what was sent before it."""


class End(asyncio.Protocol):
    """One side: what arrives here is sent at `other`. `frames` follows what arrives, in WebSockets."""

    __slots__ = (
        "_farewell",
        "_tunnel",
        "frames",
        "has_ended",
        "has_parted",
        "is_lost",
        "other",
        "sent_bytes",
        "transport",
    )

    transport: asyncio.Transport
    other: End

    def __init__(self, tunnel: Tunnel, frames: FrameFollower | None) -> None:
        self._tunnel = tunnel
        self.frames = frames
        self.sent_bytes = 0
        self.has_ended = self.is_lost = False
        self.has_parted = False
        self._farewell = b""

    # --- from the one to the other ---

    def data_received(self, data: bytes) -> None:
        self._tunnel.touch()
        if self.frames is None:
            self.other.send(data)
        elif not self._tunnel.is_closing:
            self.frames.follow(data)
            self.other.send(data)
        else:
            self._finish_frame(self.frames, data)

    def send(self, data: bytes) -> None:
        """Does nothing when this side is gone: the other one is about to be told."""
        if data and not self.transport.is_closing():
            self.sent_bytes += len(data)
            self.transport.write(data)

    def pause_writing(self) -> None:
        if not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self._tunnel.touch()
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    # --- the end of one, and of the other ---

    def eof_received(self) -> bool:
        """Half of the tunnel ends; the other half goes on, except over TLS, which knows no half."""
        self.has_ended = True
        if self._tunnel.is_closing or self.other.has_ended:
            self.transport.close()
        if not self._tunnel.is_closing:
            self.other.end_writing()
        return self.transport.can_write_eof()

    def end_writing(self) -> None:
        """The other side says no more."""
        if self.transport.is_closing():
            return
        if self.has_ended or not self.transport.can_write_eof():
            self.transport.close()
        else:
            self.transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self.other.is_lost:
            self._tunnel.end()
        elif not self._tunnel.is_closing:  # else each side ends by itself
            if exc is None:
                self.other.transport.close()
            else:
                self.other.reset()

    def reset(self) -> None:
        if not self.is_lost:
            reset(self.transport)

    # --- a Close of ours ---

    def part(self, farewell: bytes) -> None:
        """Sends the Close as soon as the frame is whole that is being sent, and nothing after it."""
        incoming = self.other.frames
        if incoming is None or incoming.is_lost:
            self.transport.close()
        elif self.other.has_ended or incoming.has_closed:
            self.has_parted = True
        elif incoming.is_between:
            self._say(farewell)
        else:
            self._farewell = farewell
        self.close_if_done()

    def _say(self, farewell: bytes) -> None:
        self.send(farewell)
        self.has_parted = True

    def _finish_frame(self, frames: FrameFollower, data: bytes) -> None:
        """What the other side has not been sent of a frame is sent, then our Close; the rest only shows whether this
        side has said Close too."""
        other, end = self.other, 0
        if not other.has_parted:
            end = frames.frame_end(data)
            other.send(data[:end])
            if frames.has_closed:
                other.has_parted = True
            elif frames.is_between:
                other._say(other._farewell)
        frames.follow(data[end:])
        self.close_if_done()
        other.close_if_done()

    def close_if_done(self) -> None:
        """After a Close each way (RFC 6455 section 7.1.1)."""
        if self.has_parted and self.frames is not None and self.frames.has_closed:
            self.transport.close()


class Tunnel:
    """`join` two transports; `end` is called, and `on_end` with it, when both are gone.

    `clock` gives monotonic seconds. `is_closing`: both sides have been told Close, or will be.
    """

    def __init__(self, *, is_websocket: bool, clock: Callable[[], float], on_end: Callable[[], None]) -> None:
        self.client = End(self, FrameFollower() if is_websocket else None)
        self.backend = End(self, FrameFollower() if is_websocket else None)
        self.client.other, self.backend.other = self.backend, self.client
        self.is_websocket = is_websocket
        self.is_closing = False
        self.ended = asyncio.Event()
        self._clock = clock
        self._on_end = on_end
        self._waiting_bytes = 0
        self._moved_at = clock()

    def join(self, client: tuple[asyncio.Transport, bytes], backend: tuple[asyncio.Transport, bytes]) -> Self:
        """Begins. Each is a transport whose protocol is the `End` already, and what it said before that."""
        pairs = ((self.client, client), (self.backend, backend))
        for end, (transport, _) in pairs:
            end.transport = transport
            transport.set_write_buffer_limits(high=BUFFER_BYTES_HIGH)
        for end, (transport, said) in pairs:
            transport.resume_reading()
            if said:
                end.data_received(said)
        return self

    def touch(self) -> None:
        """Something moved."""
        self._moved_at = self._clock()

    def idle_seconds(self) -> float:
        """Since a byte moved; also the ones that a slow reader takes from what waits for it."""
        waiting = self.client.transport.get_write_buffer_size() + self.backend.transport.get_write_buffer_size()
        if waiting != self._waiting_bytes:
            self._waiting_bytes = waiting
            self.touch()
        return self._clock() - self._moved_at

    def close(self, code: int, reason: str) -> None:
        """Ends it: a WebSocket with a Close to both sides, which have CLOSE_SECONDS to answer; others at once."""
        if not self.is_websocket:
            self.abort()
        elif not self.is_closing:
            self.is_closing = True
            self.client.part(close_frame(code, reason))
            self.backend.part(close_frame(code, reason, mask=os.urandom(4)))
            asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._give_up)

    def _give_up(self) -> None:
        for end in (self.client, self.backend):
            end.transport.abort()

    def abort(self) -> None:
        """Ends both connections with RST."""
        for end in (self.client, self.backend):
            end.reset()

    def end(self) -> None:
        self.ended.set()
        self._on_end()
