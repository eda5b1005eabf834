"""Who the client is behind routers."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.relay.proxies import REMEMBERED_MAX, TrustedProxies, address, subscriber

ROUTERS = TrustedProxies.parse("10.0.0.0/8, 192.0.2.1, 2001:db8::/32")
EVERYONE = TrustedProxies.parse("*")


def test_nobody_is_trusted_by_default() -> None:
    """Without TRUSTED_PROXIES the peer is the client, whatever X-Forwarded-For says."""
    assert TrustedProxies().client("10.0.0.1", ["1.2.3.4"]) == "10.0.0.1"


@pytest.mark.parametrize(
    ("peer", "values", "expected"),
    [
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("203.0.113.9", ["203.0.113.7"], "203.0.113.9"),  # no router: its header is its own invention
        ("10.0.0.1", ["6.6.6.6, 203.0.113.7, 10.9.9.9"], "203.0.113.7"),  # the rightmost that is no router
        ("10.0.0.1", ["6.6.6.6", "203.0.113.7", "192.0.2.1"], "203.0.113.7"),  # several lines are one list
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),  # routers all the way
        ("10.0.0.1", ["203.0.113.7, unknown, 10.0.0.2"], "10.0.0.2"),  # nothing is believed beyond nonsense
        ("10.0.0.1", ["203.0.113.7, "], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("2001:db8::1", ["[2606:4700::1]:443"], "2606:4700::1"),
        ("::ffff:10.0.0.1", ["203.0.113.7:5000"], "203.0.113.7"),
        ("not an address", ["203.0.113.7"], "not an address"),
    ],
)
def test_walk_from_the_right(peer: str, values: list[str], expected: str) -> None:
    """The client is the rightmost address that no trusted router vouches for as its own."""
    assert ROUTERS.client(peer, values) == expected


def test_star_believes_the_last_entry_only() -> None:
    """With `*` the last address counts, and what is none leaves the peer."""
    assert EVERYONE.client("10.1.1.1", ["6.6.6.6, 203.0.113.7"]) == "203.0.113.7"
    assert EVERYONE.client("10.1.1.1", ["6.6.6.6, oops"]) == "10.1.1.1"
    assert EVERYONE.trusts("anything")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.4:",
        "1.2.3.4:x",
        "[::1",
        "[::1]x",
        "fe80::1%eth0",
        "01.2.3.4",
        "1.2.3.4/8",
        "[1.2.3.4]]",
    ],
)
def test_what_is_no_address(text: str) -> None:
    """Only addresses count as addresses."""
    assert address(text) is None


@given(st.lists(st.text(max_size=30), max_size=5), st.sampled_from([ROUTERS, EVERYONE]))
def test_the_result_is_an_address_or_the_peer(values: list[str], trusted: TrustedProxies) -> None:
    """Whatever the header says, the client is an address in canonical spelling, or the peer."""
    found = trusted.client("10.0.0.1", values)
    assert str(ipaddress.ip_address(found)) == found


def test_memory_is_bounded() -> None:
    """Answers are remembered in bounded room, and stay right."""
    trusted = TrustedProxies.parse("10.0.0.0/8")
    for number in range(REMEMBERED_MAX + 10):
        assert not trusted.trusts(str(ipaddress.ip_address(number + (11 << 24))))
    assert len(trusted._remembered) <= REMEMBERED_MAX
    assert trusted.trusts("10.0.0.1")


@pytest.mark.parametrize(
    ("ip", "who"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::/64"),
        ("2001:db8::ffff:ffff:ffff:ffff", "2001:db8::/64"),
        ("2001:db8:0:1::7", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("", ""),
    ],
)
def test_who_counts_as_one(ip: str, who: str) -> None:
    """What is counted by client is counted by IPv4 address or IPv6 /64; text that is no address stands for itself."""
    assert subscriber(ip) == who
