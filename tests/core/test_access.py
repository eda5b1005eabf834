"""The access line: contract.md section 7."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.process.access import LINE_BYTES_MAX, access_line, console_line, timestamp

REQUEST: dict[str, Any] = {
    "started_at": 1769336000.1239,
    "method": "GET",
    "path": "/api/users?token=x",
    "status": 200,
    "duration_seconds": 0.0123456,
    "body_bytes": 1024,
    "client_ip": "192.168.1.1",
    "request_id": "550e8400-e29b-41d4-a716-446655440000",
    "organization_id": "org_1",
    "tier": "premium",
    "service": "api",
    "key_id": "00000000-0000-0000-0000-000000000009",
    "backend_seconds": 0.0101,
}
NOBODY = dict.fromkeys(("organization_id", "tier", "service", "key_id", "backend_seconds"))


def test_fields_and_their_order() -> None:
    """A line is one JSON object with the contract's fields in the contract's order."""
    line = access_line(**REQUEST)
    assert line.endswith(b"}\n")
    assert list(json.loads(line).items()) == [
        ("timestamp", "2026-01-25T10:13:20.123Z"),
        ("level", "info"),
        ("method", "GET"),
        ("path", "/api/users"),
        ("status", 200),
        ("duration_ms", 12.346),
        ("bytes", 1024),
        ("client_ip", "192.168.1.1"),
        ("request_id", "550e8400-e29b-41d4-a716-446655440000"),
        ("organization_id", "org_1"),
        ("plan_tier", "premium"),
        ("service", "api"),
        ("key_id", "00000000-0000-0000-0000-000000000009"),
        ("backend_ms", 10.1),
    ]


def test_absent_fields_are_null() -> None:
    """What is not known is null, and no field is ever missing."""
    found = json.loads(access_line(**REQUEST | NOBODY))
    assert list(found) == list(json.loads(access_line(**REQUEST)))
    assert [found[name] for name in ("organization_id", "plan_tier", "service", "key_id", "backend_ms")] == [None] * 5


@pytest.mark.parametrize(
    ("status", "level"), [(101, "info"), (399, "info"), (400, "warn"), (499, "warn"), (500, "error")]
)
def test_level(status: int, level: str) -> None:
    """The level follows the status: warn from 400, error from 500."""
    assert json.loads(access_line(**REQUEST | {"status": status}))["level"] == level


def test_keys_in_a_path_do_not_show() -> None:
    """A key that a client put into the path stays out of the log."""
    key = "sk_live_" + "0123456789abcdef" * 2
    for line in (access_line(**REQUEST | {"path": f"/x/{key}"}), console_line(**REQUEST | {"path": f"/x/{key}"})):
        assert b"0123456789abcdef" not in line
        assert b"/x/sk_live_***" in line


@given(path=st.text(max_size=5_000), method=st.text(max_size=5_000), request_id=st.text(max_size=5_000))
def test_any_text_makes_one_bounded_line(path: str, method: str, request_id: str) -> None:
    """Whatever a client sends, its request is one line of JSON that fits into one write."""
    line = access_line(**REQUEST | {"path": path, "method": method, "request_id": request_id})
    assert len(line) <= LINE_BYTES_MAX
    assert line.count(b"\n") == 1
    assert json.loads(line)["status"] == 200
    shown = console_line(**REQUEST | {"path": path, "method": method, "request_id": request_id}).decode()
    assert shown[:-1].isprintable(), "it would begin another line, or steer a terminal"
    assert shown[-1] == "\n"


@pytest.mark.parametrize("path", ["/\udcff\udcfe", '/"' * 3000, "/" + "\x00" * 3000, "/" + "ü" * 3000])
def test_hostile_paths(path: str) -> None:
    """Bytes that are no UTF-8, and characters that escaping multiplies, do not break the line."""
    line = access_line(**REQUEST | {"path": path})
    assert len(line) <= LINE_BYTES_MAX
    assert json.loads(line)["path"].startswith("/")


def test_timestamps_across_seconds() -> None:
    """The kept second never shows in a moment of another one."""
    assert timestamp(1769336000.9999) == "2026-01-25T10:13:20.999Z"
    assert timestamp(1769336001.0) == "2026-01-25T10:13:21.000Z"
    assert timestamp(1769336000.5) == "2026-01-25T10:13:20.500Z"
