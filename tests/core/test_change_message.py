from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.changes.change_message import BYTES_MAX, CHANGES_MAX, decode, encode
from app.core.model import Change

ID = "00000000-0000-0000-0000-0000000000aa"


def test_round_trip() -> None:
    """As many changes as fit in a message come out as they went in, within the size that is accepted."""
    changes = [Change("all"), Change("key", ID)] + [
        Change("organization", str(uuid4())) for _ in range(CHANGES_MAX - 2)
    ]
    message = encode(changes)
    assert len(message) <= BYTES_MAX
    assert decode(message) == changes


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b'"all"',
        b"[[]]",
        b'[{"kind":"all"}]',
        b'[{"kind":"all","id":"x"}]',
        b'[{"kind":"all","id":"","more":1}]',
        b'[{"kind":"everything","id":""}]',
        b'[{"kind":"key","id":""}]',
        b'[{"kind":"key","id":7}]',
        b'[{"kind":"key","id":"not a uuid"}]',
        b'[{"kind":"all","id":""},{"kind":"key","id":null}]',
        b"[" + b'{"kind":"all","id":""},' * CHANGES_MAX + b'{"kind":"all","id":""}]',
        b" " * BYTES_MAX + b'[{"kind":"all","id":""}]',
    ],
)
def test_nonsense(message: bytes) -> None:
    """A message that is wrong in any part is refused as a whole."""
    with pytest.raises(ValueError):
        decode(message)


@given(st.binary(max_size=200))
def test_any_bytes(message: bytes) -> None:
    """Whatever is published on the channel, the only failure is ValueError."""
    try:
        decode(message)
    except ValueError:
        return
    raise AssertionError("accepted")


def test_one_spelling_of_an_id() -> None:
    """An id written differently still names the same key."""
    assert decode(b'[{"kind":"key","id":"' + ID.upper().encode() + b'"}]') == [Change("key", ID)]
