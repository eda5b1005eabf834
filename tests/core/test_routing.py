"""Which backend a target belongs to, and what it is asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import ServiceNotFound
from app.core.model import Backend
from app.core.relay.routing import Router, first_segment, upstream_target


def backend(name: str, base_path: str = "") -> Backend:
    return Backend(name, "http", "h", 80, base_path)


USERS, ORDERS, DEFAULT = backend("users"), backend("orders"), backend("default")
TWO = Router({"users": USERS, "orders": ORDERS})


@pytest.mark.parametrize("target", [b"/users", b"/users/", b"/users/1?x=/orders", b"/users?orders", b"/users//"])
def test_the_first_segment_names_the_backend(target: bytes) -> None:
    """The first path segment decides, exactly as it was sent, and nothing behind it does."""
    assert TWO.choose(target) is USERS


@pytest.mark.parametrize(
    "target", [b"/", b"*", b"//users", b"/Users", b"/user%73", b"/users%2F1", b"/userss", b"/?users"]
)
def test_nothing_else_names_it(target: bytes) -> None:
    """Escapes, case, empty segments and queries name no backend: 404 with several, the default where there is one."""
    assert isinstance(TWO.choose(target), ServiceNotFound)
    assert Router({"users": USERS, "default": DEFAULT}).choose(target) is DEFAULT


@given(st.binary(max_size=40).map(lambda tail: b"/" + tail))
def test_an_only_backend_gets_everything(target: bytes) -> None:
    """With one backend there is nothing to choose."""
    assert Router({"users": USERS}).choose(target) is USERS


def test_the_refusal_names_what_was_asked_for() -> None:
    """The 404's message is the contract's, its name bounded."""
    refused = TWO.choose(b"/" + b"n" * 1_000)
    assert isinstance(refused, ServiceNotFound)
    assert refused.message == f"service '{'n' * 64}' not found"
    assert refused.status == 404


@given(st.binary(max_size=60))
def test_a_segment_never_holds_a_slash_or_a_query(tail: bytes) -> None:
    """Whatever the target, the segment starts behind the first slash and ends before the next one or the query."""
    segment = first_segment(b"/" + tail)
    assert b"/" not in segment
    assert b"?" not in segment
    assert tail.startswith(segment)


@given(st.binary(max_size=60).map(lambda tail: b"/" + tail))
def test_targets_go_on_byte_for_byte(target: bytes) -> None:
    """A base path stands in front; not a byte of the target changes. `*` stays what it is."""
    assert upstream_target(USERS, target) == target
    assert upstream_target(backend("b", "/v1/a"), target) == b"/v1/a" + target
    assert upstream_target(backend("b", "/v1/a"), b"*") == b"*"
