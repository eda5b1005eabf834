"""Following WebSocket frames without looking into them: however they are cut, where one ends is known to the byte."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import Protocol, Side

from app.core.relay.frames import FRAMES_MAX, FrameFollower, close_frame

SIZES = st.one_of(st.integers(0, 200), st.sampled_from([125, 126, 127, 65_535, 65_536, 70_000]))


@st.composite
def frames(draw: st.DrawFn) -> list[bytes]:
    """Frames of every length form, masked as a client's or bare as a server's, none of them a Close."""
    return [
        Frame(draw(st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT])), b"\x88" * draw(SIZES)).serialize(
            mask=draw(st.booleans())
        )
        for _ in range(draw(st.integers(1, 5)))
    ]


@given(frames(), st.lists(st.integers(0, 300_000), max_size=6))
def test_the_end_of_each_frame_is_found(made: list[bytes], cuts: list[int]) -> None:
    """Wherever the stream is cut: it is between two frames exactly when it is."""
    data, ends, at = b"".join(made), {0}, 0
    for frame in made:
        at += len(frame)
        ends.add(at)
    follower, places = FrameFollower(), sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in pairwise(places):
        follower.follow(data[start:end])
        assert follower.is_between is (end in ends)
    assert (follower.has_closed, follower.is_lost) == (False, False)


@given(frames())
def test_single_bytes_are_followed_too(made: list[bytes]) -> None:
    """Byte by byte through heads, the same."""
    follower = FrameFollower()
    for frame in made[:2]:
        for at in range(min(len(frame), 400)):
            assert follower.is_between is (at == 0)
            follower.follow(frame[at : at + 1])
        follower.follow(frame[400:])
        assert follower.is_between


@given(frames(), st.integers(0, 300_000))
def test_the_frame_under_way_ends_where_it_ends(made: list[bytes], cut: int) -> None:
    """Asked in the middle of a frame, it says how much of what comes next belongs to it."""
    data = b"".join(made)
    cut = min(cut, len(made[0]))
    follower = FrameFollower()
    follower.follow(data[:cut])
    rest = len(made[0]) - cut if 0 < cut < len(made[0]) else len(made[0]) if cut == 0 else len(b"".join(made[1:2]))
    assert follower.frame_end(data[cut:]) == rest


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe8bye"])
@pytest.mark.parametrize("is_masked", [False, True])
def test_a_close_is_noticed_when_it_is_whole(payload: bytes, is_masked: bool) -> None:
    """Not before its last byte; what follows it is nobody's."""
    follower, frame = FrameFollower(), Frame(Opcode.CLOSE, payload).serialize(mask=is_masked)
    follower.follow(frame[:-1])
    assert not follower.has_closed
    follower.follow(frame[-1:] + b"\x81\x7e")
    assert follower.has_closed


def test_a_length_that_cannot_be_is_not_followed() -> None:
    """With the highest bit set (RFC 6455 section 5.2) there is no telling where the frame ends."""
    follower = FrameFollower()
    follower.follow(b"\x82\x7f" + struct.pack(">Q", 1 << 63) + b"x")
    assert (follower.is_lost, follower.is_between) == (True, False)


def test_a_flood_of_empty_frames_is_not_followed_for_ever() -> None:
    """A piece may hold many frames, but following them is bounded."""
    follower = FrameFollower()
    follower.follow(b"\x82\x00" * FRAMES_MAX)
    assert follower.is_between
    follower.follow(b"\x82\x00" * (FRAMES_MAX + 1))
    assert (follower.is_lost, follower.is_between) == (True, False)


@pytest.mark.parametrize("reason", ["", "API key has been revoked", "x" * 500])
def test_a_close_of_ours_is_one_to_others(reason: str) -> None:
    """Another implementation reads it, masked as from a client, with its code and as much of the reason as fits."""
    server = Protocol(Side.SERVER)
    server.receive_data(close_frame(1008, reason, mask=b"\x01\x02\xff\x80"))
    assert server.close_rcvd == Close(1008, reason[:123])
