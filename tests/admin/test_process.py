"""`python -m admin` as a process: how it starts, what it does while PostgreSQL or Redis is away, how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from pathlib import Path

from tests.admin.conftest import TOKENS, Admin
from tests.gateway import until
from tests.tenants import ACME, add_organization, sql
from tools.embedded import RedisServer

ROOM_SECONDS = 2.0
"""For a machine that is busy with other things."""


def ended(admin: Admin) -> tuple[int, str]:
    """Exit status and standard error of a process that is to end by itself."""
    admin.start(wait=False)
    status = admin.process.wait(20)
    return status, until(lambda: "".join(admin._errors), "what it says")


def test_no_token_no_start(tmp_path: Path) -> None:
    """Without ADMIN_TOKENS and DATABASE_URL it refuses to start: a line each, with the way to make a token."""
    admin = Admin(tmp_path, "", ADMIN_TOKENS="")
    status, errors = ended(admin)
    lines = errors.splitlines()
    assert status == 1
    assert [line.split(": ")[:2] for line in lines] == [
        ["Failed to load configuration", "DATABASE_URL"],
        ["Failed to load configuration", "ADMIN_TOKENS"],
    ]
    assert 'python -c "import secrets; print(secrets.token_urlsafe(32))"' in lines[1]


def test_a_port_that_is_taken(tmp_path: Path, database_url: str) -> None:
    """A taken port is one line and status 1."""
    admin = Admin(tmp_path, database_url)
    with socket.create_server(("127.0.0.1", admin.port)):
        status, errors = ended(admin)
    assert status == 1
    assert errors.strip().startswith(f"Failed to start: 127.0.0.1 port {admin.port} cannot be used (")
    assert len(errors.strip().splitlines()) == 1


def own_addresses() -> list[str]:
    """What this machine is called from elsewhere, as far as it has a network; another loopback address; IPv6's."""
    found = ["127.0.0.2", "::1"]
    for family, anywhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as unsent:
            unsent.connect((anywhere, 9))  # chooses the address to send from, and sends nothing
            found.append(unsent.getsockname()[0])
    return found


def is_reached(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=5).close()
    except OSError:
        return False
    return True


def test_it_listens_on_loopback(tmp_path: Path, database_url: str) -> None:
    """Without ADMIN_HOST only this machine reaches it: connections to its other addresses are refused."""
    with Admin(tmp_path, database_url) as admin:
        assert is_reached("127.0.0.1", admin.port)
        assert [address for address in own_addresses() if is_reached(address, admin.port)] == []


def test_it_listens_where_it_is_told_to(tmp_path: Path, database_url: str) -> None:
    """With ADMIN_HOST it is reached from elsewhere, and asks for a token there too."""
    with Admin(tmp_path, database_url, ADMIN_HOST="0.0.0.0") as admin:
        assert is_reached("127.0.0.2", admin.port)
        assert admin.call("GET", "/v1/keys", role=None).status_code == 401


def test_sigterm_lets_requests_end(tmp_path: Path, database_url: str) -> None:
    """A request under way at SIGTERM is answered; idle connections end; the exit status is 0."""
    add_organization(database_url)
    admin = Admin(tmp_path, database_url).start()
    with admin.client() as idle, admin.client() as busy:
        idle.send(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n").reply()
        head = f"POST /v1/keys HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKENS['owner']}\r\n"
        body = f'{{"organization_id": "{ACME}", "name": "late"}}'.encode()
        busy.send(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        assert admin.answers()  # what was sent before has arrived
        admin.terminate()
        assert idle.is_closed()
        busy.send(body)
        reply = busy.reply()
        assert (reply.status, reply["connection"]) == (201, "close")
    assert admin.stop() == 0
    assert sql(database_url, "SELECT name FROM api_keys") == [("late",)]


def test_without_redis_writes_are_done_and_say_so(tmp_path: Path, database_url: str, own_redis: RedisServer) -> None:
    """With Redis gone a write is done all the same, within a second, and says that nobody was told at once."""
    with Admin(tmp_path, database_url, REDIS_URL=own_redis.url) as admin:
        until(lambda: admin.call("GET", "/health").json()["status"] == "healthy", "Redis to be there")
        assert admin.organization()["heard_by"] == 0
        own_redis.kill()
        until(lambda: admin.call("GET", "/health").json()["status"] == "degraded", "the loss to be noticed")
        began = time.monotonic()
        made = admin.organization()
        assert time.monotonic() - began < 1 + ROOM_SECONDS
        assert made["heard_by"] is None
        assert sql(database_url, "SELECT count(*) FROM changes WHERE ref = %s", made["id"]) == [(1,)]


def test_without_a_redis_at_all(tmp_path: Path, database_url: str) -> None:
    """No Redis configured: writes are done, `heard_by` is null, and the health endpoints say what is not configured."""
    with Admin(tmp_path, database_url) as admin:
        assert admin.key()["heard_by"] is None
        ready = admin.call("GET", "/health/ready").json()
        assert (ready["ready"], ready["checks"]) == (True, {"database": "ok", "redis": "not configured"})


def test_before_there_is_a_database(tmp_path: Path) -> None:
    """It starts without a database, is not ready, answers 503 within a second, and leaks nothing of why."""
    with Admin(tmp_path, "postgresql://postgres:hushhush@127.0.0.1:1/x") as admin:
        ready = admin.call("GET", "/health/ready")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert ready.json()["checks"]["database"] == "unreachable"
        for method, path, body in (
            ("GET", "/v1/keys", None),
            ("GET", f"/v1/organizations/{ACME}", None),
            ("POST", "/v1/organizations", {"name": "n", "tier": "basic"}),
        ):
            began = time.monotonic()
            answer = admin.call(method, path, body)
            assert time.monotonic() - began < 1 + ROOM_SECONDS
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert answer.json()["error"]["message"] == "database temporarily unavailable"
        assert "hushhush" not in admin.output


def test_a_client_that_leaves_stops_nothing(tmp_path: Path, database_url: str) -> None:
    """A change whose client hangs up is done to its end: the key exists, with its audit line."""
    add_organization(database_url)
    with Admin(tmp_path, database_url) as admin:
        body = f'{{"organization_id": "{ACME}", "name": "left"}}'
        head = f"POST /v1/keys HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKENS['owner']}\r\n"
        with admin.client() as client:
            client.send(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        until(lambda: sql(database_url, "SELECT 1 FROM audit_log WHERE action = 'key.create'"), "the audit line")
        assert sql(database_url, "SELECT name FROM api_keys") == [("left",)]


def test_after_the_database_restarted_nothing_fails(tmp_path: Path, database_url: str) -> None:
    """Connections that the server has closed in the meantime cost no request."""
    with Admin(tmp_path, database_url) as admin:
        unit_id = admin.organization()["id"]
        for _ in range(3):
            sql(
                database_url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gateway-admin'",
            )
            assert admin.call("PATCH", f"/v1/organizations/{unit_id}", {"name": "n"}).status_code == 200
            assert admin.call("GET", "/v1/organizations").status_code == 200


def test_old_answers_are_forgotten(tmp_path: Path, database_url: str) -> None:
    """What was kept for an Idempotency-Key longer than a day is deleted; what is younger stays."""
    for key, hours in (("old", 25), ("young", 23)):
        sql(
            database_url,
            "INSERT INTO idempotency_keys (actor, key, fingerprint, created_at) "
            "VALUES ('a', %s, repeat('ab', 32), now() - make_interval(hours => %s))",
            key,
            hours,
        )
    with Admin(tmp_path, database_url):
        until(lambda: sql(database_url, "SELECT key FROM idempotency_keys") == [("young",)], "the old one to go")


def test_the_log_is_json(tmp_path: Path, database_url: str) -> None:
    """Everything that it says is one JSON line each, and it says where it listens."""
    with Admin(tmp_path, database_url) as admin:
        admin.call("GET", "/health")
        os.kill(admin.process.pid, signal.SIGINT)
        assert admin.process.wait(20) == 0
    lines = admin.log()
    assert len(lines) == len(admin._lines)
    assert any(line["message"].startswith("🚀 Admin server starting on http://127.0.0.1:") for line in lines)
    assert admin._errors == []
