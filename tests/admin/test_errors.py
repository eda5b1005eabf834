"""Errors in the public contract's envelope, whoever finds them."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from tests.admin.conftest import NOWHERE, TOKENS, Admin, problems
from tests.gateway import until

OWNER = f"Authorization: Bearer {TOKENS['owner']}"


def envelope(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, the envelope around it checked."""
    body = answer.json()
    assert set(body) == {"error", "timestamp", "request_id"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["timestamp"])
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert body["error"]["code"] == answer.status_code
    assert answer.headers["Content-Type"] == "application/json"
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize("target", ["/", "/v1", "/v1/key", "/v1/keys/", "/v1/keys/a/b", "/docs/"])
def test_nothing_there(admin: Admin, target: str) -> None:
    """An unknown target is 404, with or without a token, and does not repeat what was asked."""
    for role in ("owner", None):
        answer = admin.call("GET", target, role=role)
        assert envelope(answer) == {"code": 404, "message": "there is no such endpoint"}


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("DELETE", "/v1/keys", "GET, POST"),
        ("PUT", "/v1/organizations", "GET, POST"),
        ("OPTIONS", "/v1/audit", "GET"),
        ("HEAD", "/v1/audit", "GET"),
        ("POST", "/docs", "GET"),
        ("GET", "/v1/cache/invalidate", "POST"),
        ("DELETE", f"/v1/organizations/{NOWHERE}", "GET, PATCH"),
        ("POST", f"/v1/organizations/{NOWHERE}/limits", "GET, PUT, DELETE"),
        ("OPTIONS", f"/v1/keys/{NOWHERE}/rotate", "POST"),
    ],
)
def test_methods_that_are_not_taken(admin: Admin, method: str, target: str, allowed: str) -> None:
    """405 names the methods that the target takes, in Allow."""
    answer = admin.call(method, target)
    assert answer.status_code == 405
    assert sorted(answer.headers["Allow"].split(", ")) == sorted(allowed.split(", "))
    assert "alt-svc" not in answer.headers
    if method != "HEAD":
        envelope(answer)


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "multipart/form-data"]
)
def test_bodies_that_are_not_json_by_name(admin: Admin, kind: str | None) -> None:
    """A body under any other Content-Type than JSON's, or none, is 415."""
    headers = {"Authorization": f"Bearer {TOKENS['owner']}"} | ({"Content-Type": kind} if kind else {})
    answer = admin.http.post("/v1/organizations", content=b'{"name": "a", "tier": "basic"}', headers=headers)
    assert (answer.status_code, envelope(answer)["message"]) == (
        415,
        "the body must be JSON, with Content-Type: application/json",
    )


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"]
)
def test_bodies_that_are(admin: Admin, kind: str) -> None:
    """JSON's own type, with a charset or not, and JSON merge patch are taken."""
    headers = {"Authorization": f"Bearer {TOKENS['owner']}", "Content-Type": kind}
    answer = admin.http.post("/v1/organizations", content=b'{"name": "a", "tier": "basic"}', headers=headers)
    assert answer.status_code == 201


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"name": "\\ud800"}', b"[" * 30_000, b'{"a": 1} {"b": 2}'])
def test_bodies_that_are_no_json(admin: Admin, body: bytes) -> None:
    """What cannot be read as JSON is 400."""
    headers = {"Authorization": f"Bearer {TOKENS['owner']}", "Content-Type": "application/json"}
    answer = admin.http.post("/v1/organizations", content=body, headers=headers)
    assert (answer.status_code, envelope(answer)["message"]) == (400, "the body is no JSON")


def test_bodies_where_none_belongs(admin: Admin) -> None:
    """A body that an endpoint would have to ignore is a problem; an empty object, which says nothing, is none."""
    path = f"/v1/organizations/{admin.organization()['id']}/limits"
    for method, target in (("DELETE", path), ("POST", f"{path}/reset")):
        assert problems(admin.call(method, target, {"per_minute": 5})) == {("body",): "this endpoint takes none"}
        assert admin.call(method, target, {}).status_code == 200


def test_bodies_are_capped(admin: Admin) -> None:
    """More than 64 KiB is 413, said or streamed."""
    headers = {"Authorization": f"Bearer {TOKENS['owner']}", "Content-Type": "application/json"}
    large = b'{"name": "' + b"n" * 65_536 + b'", "tier": "basic"}'
    said = admin.http.post("/v1/organizations", content=large, headers=headers)
    streamed = admin.http.post("/v1/organizations", content=iter([large[:40_000], large[40_000:]]), headers=headers)
    for answer in (said, streamed):
        assert (answer.status_code, envelope(answer)["message"]) == (413, "request body too large")


def test_what_is_no_http(admin: Admin) -> None:
    """Garbage gets 400 in the envelope, and the server lives on."""
    reply = admin.ask(b"GARBAGE\r\n\r\n")
    assert (reply.status, reply.json()["error"]["code"]) == (400, 400)
    assert admin.call("GET", "/health").status_code == 200


@pytest.mark.parametrize(
    ("request_line", "field", "status", "message"),
    [
        (b"GET /v1/\x00 HTTP/1.1", b"", 400, "malformed request"),
        (b"GET :// HTTP/1.1", b"", 400, "malformed request"),
        (b"GET /" + b"t" * 9_000 + b" HTTP/1.1", b"", 414, "request target too long"),
        (b"GET /health HTTP/1.1", b"X: " + b"f" * 9_000, 431, "request headers too large"),
    ],
    ids=["zero byte", "no URL", "long target", "long field"],
)
def test_heads_that_will_not_do(admin: Admin, request_line: bytes, field: bytes, status: int, message: str) -> None:
    """A head that no request can be made of gets an answer too, which says what is wrong with it."""
    reply = admin.ask(request_line + b"\r\nHost: admin\r\n" + field + b"\r\n\r\n")
    assert (reply.status, reply.json()["error"]["message"]) == (status, message)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://evil", 404),
        (b"http://evil/v1/keys", 401),
        (b"/v1/keys" + b"/" * 2_000, 404),
        (b"/" * 2_000, 404),
        (b"/v1/../v1/keys", 404),
        (b"//v1/keys", 404),
    ],
)
def test_no_target_of_a_stranger_is_a_failure_of_ours(admin: Admin, target: bytes, status: int) -> None:
    """Absolute targets, and slashes without end, are refused like any other: no 500, no traceback in the log."""
    reply = admin.ask(b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % target)
    assert reply.status == status
    assert admin.access(reply["X-Request-ID"])["status"] == status
    assert "Traceback" not in admin.output


def test_clients_that_hang_up_are_no_failures(admin: Admin) -> None:
    """A connection that ends in the middle of a request is the client's doing: its line in the log is no error."""
    with admin.client() as client:
        client.send(b"POST /v1/cache/invalidate HTTP/1.1\r\nHost: admin\r\nContent-Length: 9\r\n\r\nhalf")
    [line] = until(lambda: admin.log(path="/v1/cache/invalidate", method="POST"), "the line of the request")
    assert (line["level"], line["status"]) == ("warn", 400)
    assert not admin.log(level="error")


def test_request_ids(admin: Admin) -> None:
    """Every answer has an id of its own; a client's own is believed from trusted proxies only, and there are none."""
    answers = [admin.call("GET", "/health", X_Request_ID="mine") for _ in range(2)]
    ids = {answer.headers["X-Request-ID"] for answer in answers}
    assert len(ids) == 2
    assert "mine" not in ids


def test_the_log_line_of_a_request(admin: Admin) -> None:
    """One JSON line a request, with who asked and from where, and neither the query nor a secret."""
    answer = admin.call("GET", "/v1/keys?prefix=sk_live_0&limit=3", role="viewer")
    line = admin.access(answer.headers["X-Request-ID"])
    assert (line["method"], line["path"], line["status"], line["who"]) == ("GET", "/v1/keys", 200, "viewer-1")
    assert (line["client_ip"], line["bytes"], line["level"]) == ("127.0.0.1", len(answer.content), "info")
    assert line["duration_ms"] > 0
    refused = admin.call("GET", "/v1/nothing")
    assert admin.access(refused.headers["X-Request-ID"])["level"] == "warn"
    assert TOKENS["viewer"] not in admin.output


def test_pages_of_others_may_not_read(admin: Admin) -> None:
    """No CORS header is sent, whatever origin asks."""
    answer = admin.call("GET", "/health", Origin="https://evil.example")
    assert not [name for name in answer.headers if name.startswith("access-control-")]
