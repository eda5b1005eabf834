"""Which wishes to switch protocols are passed on, and which answers are taken for agreement."""

from __future__ import annotations

import pytest

from app.core.relay import upgrade


@pytest.mark.parametrize("value", [b"websocket", b"WebSocket", b"connect-udp", b"IRC/6.9", b"a/b", b"x" * 64])
def test_a_protocol_is_passed_on_as_it_was_spelled(value: bytes) -> None:
    """One protocol, with or without a version."""
    assert upgrade.asked_for([(b"Host", b"h"), (b"uPGRADE", value)]) == value


@pytest.mark.parametrize(
    "value",
    [
        *(b"h2c", b"H2C", b"h2", b"h3", b"HTTP/2.0", b"http/1.1", b"TLS/1.0", b"tls", b"h2c/x"),
        *(b"", b"websocket, h2c", b"websocket,", b"a/b/c", b"/", b"a/", b"a b", b"\xe9", b"a;q=1", b"x" * 65),
    ],
)
def test_what_carries_requests_or_is_no_single_protocol_is_ignored(value: bytes) -> None:
    """HTTP inside a tunnel would go past keys and limits; of a list nobody knows what the backend takes."""
    assert upgrade.asked_for([(b"Upgrade", value)]) is None


def test_repeated_fields_are_ignored() -> None:
    """Two fields are a list, even of the same; none asks for nothing."""
    assert upgrade.asked_for([(b"Upgrade", b"websocket")] * 2) is None
    assert upgrade.asked_for([(b"X-Upgrade", b"websocket")]) is None


@pytest.mark.parametrize(
    ("fields", "does_agree"),
    [
        ([(b"upgrade", b"WebSocket")], True),
        ([(b"Upgrade", b"websocket"), (b"Upgrade", b"websocket")], False),
        ([(b"Upgrade", b"h2c")], False),
        ([(b"Upgrade", b"websocket, h2c")], False),
        ([], False),
    ],
)
def test_an_answer_agrees_to_what_was_asked_for(fields: list[tuple[bytes, bytes]], does_agree: bool) -> None:
    """The same protocol in any case, once, and no other."""
    assert upgrade.agrees(b"websocket", fields) is does_agree
