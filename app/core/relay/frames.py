"""WebSocket frames as they pass by (RFC 6455 section 5): where each ends, so that a Close fits between two. Pure."""

from __future__ import annotations

import struct
from typing import Final

HEAD_BYTES_MAX: Final = 14
FRAMES_MAX: Final = 16_384
"""In one piece of data. Following a frame takes half a microsecond: who sends nothing but empty ones must not hold the
event loop, so the stream is then followed no further (and ends without a Close of ours)."""
REASON_BYTES_MAX: Final = 123
GOING_AWAY: Final = 1001
POLICY_VIOLATION: Final = 1008
_CLOSE: Final = 8


class FrameFollower:
    """Follows one direction. `has_closed`: a whole Close frame has passed, the last one (section 5.5.1).

    `is_lost`: the frames cannot be told apart any more. Neither state ends. Payloads are not looked at.
    """

    __slots__ = ("_head", "_is_close", "_left", "has_closed", "is_lost")

    def __init__(self) -> None:
        self.has_closed = self.is_lost = False
        self._head = b""
        self._left = 0
        self._is_close = False

    @property
    def is_between(self) -> bool:
        """Whether the next byte would begin a frame."""
        return not (self._left or self._head or self.is_lost)

    def follow(self, data: bytes) -> None:
        """Takes note of everything in `data`."""
        at, size = 0, len(data)
        for _ in range(FRAMES_MAX):
            if at == size or self.has_closed or self.is_lost:
                return
            at = self.frame_end(data, at)
        self.is_lost = at < size

    def frame_end(self, data: bytes, start: int = 0) -> int:
        """Takes note of `data[start:]` up to the end of one frame: the one under way, or the one that begins there.

        Returns where it ends, which is the end of `data` when more of it is to come.
        """
        if not self._left:
            start = self._read_head(data, start)
        step = min(self._left, len(data) - start)
        self._left -= step
        if self._is_close and self.is_between:
            self.has_closed = True
        return start + step

    def _read_head(self, data: bytes, start: int) -> int:
        known = len(self._head)
        head = self._head + data[start : start + HEAD_BYTES_MAX - known]
        size = _head_bytes(head)
        if len(head) < size:
            self._head = head
            return len(data)
        self._head = b""
        self._is_close = head[0] & 0x0F == _CLOSE
        self._left = _payload_bytes(head)
        self.is_lost = self._left >= 1 << 63
        return start + size - known


def _head_bytes(head: bytes) -> int:
    """How long the head is that begins like this, as far as can be told yet."""
    if len(head) < 2:
        return 2
    length = head[1] & 0x7F
    return 2 + (8 if length == 127 else 2 if length == 126 else 0) + (4 if head[1] & 0x80 else 0)


def _payload_bytes(head: bytes) -> int:
    length = head[1] & 0x7F
    return length if length < 126 else int.from_bytes(head[2 : 4 if length == 126 else 10], "big")


def close_frame(code: int, reason: str, mask: bytes = b"") -> bytes:
    """A Close. `mask`: four random bytes in what a client sends (section 5.3), nothing in what a server does."""
    payload = struct.pack(">H", code) + reason.encode()[:REASON_BYTES_MAX]
    if mask:
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return bytes((0x80 | _CLOSE, (0x80 if mask else 0) | len(payload))) + mask + payload
