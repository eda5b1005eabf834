"""Nothing secret comes out: marked secrets go in wherever one can, and then every byte that came out is searched."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql as compose

from app.core.keys.credential import digest, mint
from tests.app.test_backend_failures import CUT_SHORT, HEAD_OK, MALFORMED
from tests.backend import Backend, Connection
from tests.command import run
from tests.gateway import Gateway, until
from tests.tenants import ACME, add_key, add_organization, sql
from tools.embedded import RedisServer, free_port

Start = Callable[..., Gateway]
ADMIN_TOKEN = f"admin-token-{secrets.token_hex(16)}"


def mark(name: str) -> str:
    """A secret that nobody else has."""
    return f"{name}-{secrets.token_hex(8)}"


class Marks:
    """The secrets of one run. `keys` by what they are good for."""

    def __init__(self, database_url: str) -> None:
        self.cookie, self.query, self.body, self.proxy = mark("cookie"), mark("query"), mark("body"), mark("proxy")
        self.basic, self.user_info, self.malformed = mark("basic"), mark("user"), mark("malformed")
        self.x_api_key, self.referer, self.set_cookie = mark("x-api-key"), mark("referer"), mark("set-cookie")
        self.keys = {kind: mint("test") for kind in ("valid", "revoked", "expired", "unknown", "static", "in the path")}
        add_organization(database_url)
        for number, kind in enumerate(("valid", "revoked", "expired"), 1):
            key_id = add_key(database_url, number)
            sql(database_url, "UPDATE api_keys SET key_digest = %s WHERE id = %s::uuid", self.digest(kind), key_id)
        revoked = "UPDATE api_keys SET revoked_at = now(), revoked_reason = 'lost' WHERE key_digest = %s"
        sql(database_url, revoked, self.digest("revoked"))
        sql(database_url, "UPDATE api_keys SET expires_at = now() WHERE key_digest = %s", self.digest("expired"))

    def digest(self, kind: str) -> str:
        return digest(self.keys[kind]).hex()

    def all(self) -> list[str]:
        """Every one, keys without the part that may be shown."""
        plain = [value for value in vars(self).values() if isinstance(value, str)]
        return [*plain, *(key[12:] for key in self.keys.values()), ADMIN_TOKEN]

    def found_in(self, text: str | bytes) -> list[str]:
        """Those that `text` contains."""
        shown = text if isinstance(text, str) else text.decode("latin-1")
        return [each for each in self.all() if each in shown]

    def requests(self) -> Iterator[bytes]:
        """Requests that carry them in every place, well formed and not."""
        given = [f"Bearer {key}" for key in self.keys.values()]
        given += [f"Basic {self.basic}", f"Bearer {self.malformed}", f"{self.malformed}", f"Bearer {self.basic} x"]
        targets = [  # the first one is for every credential, the others for a good one
            f"/api/x?token={self.query}",
            f"/{self.keys['in the path']}/x?{self.query}",
            f"/api/{self.keys['in the path'].replace('_', '%5F')}",
            f"http://guest:{self.user_info}@gateway/x?{self.query}",
            f"http://{self.user_info}@gateway/x",
            f"//guest:{self.user_info}@gateway/x?{self.query}",
            f"/x#{self.query}",
        ]
        valid = f"Bearer {self.keys['valid']}"
        pairs = [(targets[0], each) for each in given] + [(target, valid) for target in targets[1:]]
        endings = [
            "\r\n",
            "Bad Name: x\r\n\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "Upgrade: x\r\n\r\n",
        ]
        for target, authorization in pairs:
            for ending in endings:
                yield self._request(target, authorization, ending).encode()
        yield self._request(targets[0], f"{valid}\r\nAuthorization: {valid}", "\r\n").encode()
        yield self._request(targets[0], f"{valid}\x01", "\r\n").encode()

    def _request(self, target: str, authorization: str, ending: str) -> str:
        fields = f"Authorization: {authorization}\r\nCookie: session={self.cookie}\r\nX-Api-Key: {self.x_api_key}\r\n"
        fields += f"Proxy-Authorization: Basic {self.proxy}\r\nReferer: http://x/?{self.referer}\r\n"
        return f"GET {target} HTTP/1.1\r\nHost: gateway\r\n{fields}Connection: close\r\n{ending}"

    def upload(self, chunk_line: bytes) -> bytes:
        head = self._request("/api/upload", f"Bearer {self.keys['valid']}", "Transfer-Encoding: chunked\r\n\r\n")
        return head.encode() + chunk_line + f"\r\n{self.body}".encode()


def ask(gateway: Gateway, request: bytes, *, is_all: bool = False) -> bytes:
    """Everything that comes back until the connection ends. `is_all`: the client leaves after it."""
    with gateway.client() as client, contextlib.suppress(OSError):
        client.send(request)
        if is_all:
            client.socket.shutdown(socket.SHUT_WR)
        return client.rest()
    return b""


class Monitor:
    """Every command that a Redis gets while this lasts, as it tells it (MONITOR). A context manager."""

    def __init__(self, port: int) -> None:
        self.heard = b""
        self._socket = socket.create_connection(("127.0.0.1", port))

    def __enter__(self) -> Monitor:
        self._socket.sendall(b"MONITOR\r\n")
        assert self._socket.recv(5) == b"+OK\r\n"
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def _listen(self) -> None:
        while data := self._socket.recv(65_536):
            self.heard += data

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()


def rows(url: str) -> str:
    """Every row of every table of ours, as text."""
    tables = sql(url, "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema = 'public'")
    with psycopg.connect(url, autocommit=True) as connection:
        found = [
            connection.execute(compose.SQL("SELECT t::text FROM {} t").format(compose.Identifier(*table))).fetchall()
            for table in tables
        ]
    return repr(found)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_secret_of_a_request_comes_out(
    log_format: str, start: Start, backend: Backend, database_url: str, redis_server: RedisServer
) -> None:
    """Keys, cookies, queries and bodies of good and bad requests to good and bad backends are in no log, no error, no
    table and no command to Redis, at the most talkative level too."""
    marks = Marks(database_url)
    static = f"{marks.keys['static']}:org_1:premium"
    shared = {"DATABASE_URL": database_url, "REDIS_URL": redis_server.url, "LOG_LEVEL": "debug"}
    with Monitor(redis_server.port) as monitor:
        gateway = start(
            **shared,
            LOG_FORMAT=log_format,
            VALID_API_KEYS=static,
            BACKEND_URLS=f"api={backend.url},other=http://127.0.0.1:{free_port()}",
            BACKEND_TIMEOUT="1",
        )
        answers = [ask(gateway, request) for request in marks.requests()]
        uploads = [marks.upload(chunk_line) for chunk_line in (b"fffff", b"xyz", b"-1", b"5")]
        answers += [ask(gateway, upload, is_all=True) for upload in uploads]
        answers.append(gateway.get(f"/other/x?{marks.query}", key=marks.keys["valid"], Cookie=marks.cookie).head)
        cookie = f"Set-Cookie: session={marks.set_cookie}\r\n".encode()
        broken = [HEAD_OK + cookie + each.removeprefix(HEAD_OK) for each in MALFORMED.values() if len(each) < 10_000]
        broken += [HEAD_OK + framing + body for framing, body in CUT_SHORT.values() if len(body) < 10_000]
        for data in broken:
            backend.script = _once(data)
            answers.append(gateway.get(f"/api/x?{marks.query}", key=marks.keys["valid"], Cookie=marks.cookie).body)
        gateway.stop()
    assert {403, 200, 400, 401, 404, 502} <= {int(each[9:12]) for each in answers if each.startswith(b"HTTP")}
    for answer in answers:
        assert marks.found_in(answer) == [], answer
    until(lambda: "/api/upload" in gateway.output, "the log to be whole")
    for line in gateway.output.splitlines():
        assert marks.found_in(line) == [], line
    assert marks.found_in(monitor.heard) == []
    stored = rows(database_url)
    assert marks.digest("valid") in stored
    assert marks.found_in(stored) == []


def _once(data: bytes) -> Callable[[Connection], None]:
    def script(connection: Connection) -> None:
        connection.read()
        connection.send(data)

    return script


def test_no_secret_of_the_admin_app_comes_out(start: Start, database_url: str, redis_server: RedisServer) -> None:
    """Tokens, queries, cookies and the keys that are made or asked about are in no log, table, command or error."""
    marks = Marks(database_url)
    key, wrong = marks.keys["unknown"], mark("wrong-token-that-is-long-enough")
    marks.proxy = wrong
    with Monitor(redis_server.port) as monitor:
        admin = start(
            module="admin",
            DATABASE_URL=database_url,
            REDIS_URL=redis_server.url,
            ADMIN_TOKENS=f"ops:owner:{ADMIN_TOKEN}",
            LOG_LEVEL="debug",
        )

        def call(line: str, token: str = f"Bearer {ADMIN_TOKEN}", body: str = "", fields: str = "") -> bytes:
            head = f"{line} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\nAuthorization: {token}\r\n"
            head += f"Cookie: session={marks.cookie}\r\nContent-Type: application/json\r\n{fields}"
            return ask(admin, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())

        new = f'{{"organization_id": "{ACME}", "name": "new"}}'
        made = call("POST /v1/keys", body=new, fields="Idempotency-Key: once\r\n")
        marks.keys["made"] = made.partition(b'"api_key":"')[2][:40].decode()
        assert len(marks.keys["made"][12:]) == 28
        answers = [
            call("POST /v1/keys", body=new, fields="Idempotency-Key: once\r\n"),
            call(f"GET /v1/keys?cursor={marks.query}"),
            call(f"GET /v1/keys?organization_id={marks.query}"),
            call(f"GET /v1/keys/{key}"),
            call(f"GET /nothing/{key}?{marks.query}"),
            call("POST /v1/explain", body=f'{{"api_key": "{key}"}}'),
            call("POST /v1/explain", body=f'{{"api_key": "{marks.keys["made"]}"}}'),
            call("POST /v1/explain", body=f'{{"api_key": ["{key}"]}}'),
            call("POST /v1/explain", body=f'{{"api_key": "{key}'),
            call("POST /v1/keys", body=f'{{"organization_id": "{marks.body}", "name": 7}}'),
            call("GET /v1/keys", token=f"Bearer {wrong}"),
            call("GET /v1/keys", token=f"Basic {wrong}"),
            call("GET /v1/keys", token=f"Bearer {ADMIN_TOKEN}x"),
            call("GET /v1/keys", token=f"Bearer {ADMIN_TOKEN}\r\nBad Name: {wrong}"),
            call(f"GET http://guest:{wrong}@admin/v1/keys?x={marks.query}"),
            call(f"GET {marks.query}:{wrong}@x"),
        ]
        admin.stop()
    assert {201, 200, 400, 401, 404, 422} <= {int(each[9:12]) for each in answers if each}
    for answer in answers:
        assert marks.found_in(answer) == [], answer
    for line in admin.output.splitlines():
        assert marks.found_in(line) == [], line
    assert marks.found_in(monitor.heard) == []
    assert marks.found_in(rows(database_url)) == []


def echo(connection: Connection) -> None:
    """A Redis older than HELLO, which repeats what it did not understand."""
    while connection.more():
        words = [word for word in connection.buffer.split(b"\r\n") if word[:1] not in b"*$"]
        connection.buffer = b""
        said = b" ".join(b"`%b`," % word for word in words[1:])
        connection.send(b"-ERR unknown command `%b`, with args beginning with: %b\r\n" % (words[0], said) * 2)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_password_of_a_dependency_comes_out(log_format: str, start: Start, postgres_uri: str) -> None:
    """PostgreSQL and Redis that are away, refuse the user or repeat the password: the log says so without it."""
    password = mark("pass.word")
    if log_format == "json":
        database = f"postgresql://guest:{password}@127.0.0.1:{free_port()}/gateway"
    else:
        database = f"postgresql://nobody:{password}@/gateway?{postgres_uri.partition('?')[2]}"
    with Backend(echo) as old_redis:
        shared = {
            "DATABASE_URL": database,
            "REDIS_URL": f"redis://:{password}@127.0.0.1:{old_redis.port}/0",
            "LOG_LEVEL": "debug",
            "LOG_FORMAT": log_format,
        }
        gateway = start(**shared, wait=False)
        admin = start(**shared, module="admin", ADMIN_TOKENS=f"ops:owner:{ADMIN_TOKEN}")
        until(gateway.answers, "the gateway to answer")
        assert gateway.get("/x", key=mint("test")).status == 503
        for each in (gateway, admin):
            health = each.get("/health", key=None).body + each.get("/health/ready", key=None).body
            until(lambda each=each: "unknown command" in each.output, "Redis to be missed")  # type: ignore[misc]
            assert password not in each.output + health.decode()
    assert password not in run("db", "migrate", DATABASE_URL=database).stderr
    assert password not in run("tools.orgs", "list", DATABASE_URL=database).stderr
