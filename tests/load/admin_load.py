"""How long lists and reads of the admin app take with 100,000 keys and 10,000 organizations in the database.

`python -m tests.load.admin_load` starts a PostgreSQL and `python -m admin`, asks each question `--requests` times from
`--clients` connections, and prints a table. No test: it measures a machine. Exit status 1 when a p99 is above 50 ms.
"""

from __future__ import annotations

import http.client
import json
import secrets
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, LiteralString
from urllib.parse import quote

import click
import psycopg
from rich.console import Console
from rich.table import Table

from db.migrate import migrate
from tests.gateway import Gateway
from tools.embedded import postgres

ORGANIZATIONS: Final = 10_000
KEYS: Final = 100_000
BOUND_SECONDS: Final = 0.050
FILL: Final[tuple[LiteralString, ...]] = (
    """
    INSERT INTO organizations (name, tier, active, created_at)
    SELECT (ARRAY['Acme', 'Globex', 'Initech', 'Umbrella', 'Stark'])[1 + mod(n, 5)] || ' ' || md5(n::text),
        (ARRAY['basic', 'basic', 'basic', 'premium', 'enterprise'])[1 + mod(n / 7, 5)], mod(n, 10) <> 0,
        now() - make_interval(mins => n)
    FROM generate_series(1, %(organizations)s) AS n
    """,
    """
    INSERT INTO organization_limits (organization_id, per_minute, per_day, burst)
    SELECT id, 500, 50000, 100 FROM organizations WHERE starts_with(name, 'Acme')
    """,
    """
    INSERT INTO api_keys (organization_id, name, env, prefix, key_digest, created_at, created_by, last_used_at,
        expires_at, revoked_at, revoked_reason)
    SELECT o.id, 'key ' || n, 'live', 'sk_live_' || left(md5(n::text), 4), encode(sha256(n::text::bytea), 'hex'),
        now() - make_interval(secs => 30 * n), 'load',
        CASE WHEN mod(n, 3) > 0 THEN now() - make_interval(mins => n) END,
        CASE mod(n, 20) WHEN 1 THEN now() + make_interval(hours => 1 + mod(n, 2000))
            WHEN 2 THEN now() - interval '1 day' END,
        CASE WHEN mod(n, 20) = 3 THEN now() END, CASE WHEN mod(n, 20) = 3 THEN 'load' END
    FROM generate_series(1, %(keys)s) AS n
    JOIN (SELECT id, row_number() OVER () AS number FROM organizations) AS o ON o.number = 1 + mod(n, %(organizations)s)
    """,
    """
    INSERT INTO audit_log (who, action, subject_kind, subject_id, after)
    SELECT 'load', 'key.create', 'key', id, '{"name": "load"}' FROM api_keys
    """,
)


class Client:
    """A kept-alive connection, on the standard library: httpx alone would cost milliseconds a request."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._fields = {"Authorization": f"Bearer {token}"}

    def get(self, target: str) -> Any:
        """The body of a 200. Raises RuntimeError for anything else."""
        self._connection.request("GET", target, headers=self._fields)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"GET {target}: {response.status} {body!r}")
        return json.loads(body)

    def close(self) -> None:
        self._connection.close()


def fill(url: str) -> None:
    """The organizations, keys and audit lines, as a year of use would leave them."""
    numbers = {"organizations": ORGANIZATIONS, "keys": KEYS}
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in FILL:
            connection.execute(statement, numbers if "%(" in statement else None)
        connection.execute("ANALYZE")


@contextmanager
def running() -> Iterator[tuple[int, str]]:
    """The admin app over a filled database: its port, and a token."""
    folder = Path(tempfile.mkdtemp(prefix="gw-"))
    folder.chmod(0o755)
    token = secrets.token_urlsafe(32)
    try:
        with postgres(folder / "pg") as url:
            migrate(url)
            fill(url)
            environment = {"DATABASE_URL": url, "ADMIN_TOKENS": f"load:owner:{token}", "LOG_LEVEL": "error"}
            with Gateway(folder / "admin", environment, module="admin") as admin:
                yield admin.port, token
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def pages_on(client: Client, target: str, pages: int) -> str:
    """The target of a page far inside a list."""
    separator = "&" if "?" in target else "?"
    cursor = None
    for _ in range(pages):
        cursor = client.get(target + (f"{separator}cursor={quote(cursor)}" if cursor else ""))["next_cursor"]
    return f"{target}{separator}cursor={quote(str(cursor))}"


def questions(client: Client) -> dict[str, str]:
    """What people ask, by a name for the table."""
    organization = client.get("/v1/organizations?limit=1")["items"][0]["id"]
    key = client.get(f"/v1/keys?organization_id={organization}&limit=1")["items"][0]["id"]
    week_ago = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 7 * 86_400))
    return {
        "organizations": "/v1/organizations",
        "organizations, 200 a page": "/v1/organizations?limit=200",
        "organizations, page 40": pages_on(client, "/v1/organizations?limit=200", 40),
        "organizations by tier": "/v1/organizations?tier=enterprise",
        "organizations, inactive": "/v1/organizations?active=false",
        "organizations by a common part": "/v1/organizations?name=acme",
        "organizations by a rare part": "/v1/organizations?name=c4ca4238",
        "organizations by no part": "/v1/organizations?name=nobody",
        "one organization": f"/v1/organizations/{organization}",
        "its limits": f"/v1/organizations/{organization}/limits",
        "keys": "/v1/keys",
        "keys, 200 a page": "/v1/keys?limit=200",
        "keys, page 400": pages_on(client, "/v1/keys?limit=200", 400),
        "keys of one organization": f"/v1/keys?organization_id={organization}",
        **{f"keys, {status}": f"/v1/keys?status={status}" for status in ("active", "expiring", "expired", "revoked")},
        "keys by prefix": "/v1/keys?prefix=sk_live_c4ca",
        "keys by no prefix": "/v1/keys?prefix=sk_test_ffff",
        "keys unused for a week": f"/v1/keys?unused_since={week_ago}",
        "revoked keys unused for a week": f"/v1/keys?status=revoked&unused_since={week_ago}",
        "one key": f"/v1/keys/{key}",
        "audit log": "/v1/audit",
        "audit log of one key": f"/v1/audit?subject_id={key}",
    }


def measure(new_client: Callable[[], Client], target: str, requests: int, clients: int) -> list[float]:
    """Seconds of each request, sorted; `clients` ask at once, each on a connection of its own."""

    def ask(_: int) -> list[float]:
        client = new_client()
        taken = []
        for _ in range(requests // clients):
            began = time.perf_counter()
            client.get(target)
            taken.append(time.perf_counter() - began)
        client.close()
        return taken

    with ThreadPoolExecutor(clients) as pool:
        return sorted(seconds for taken in pool.map(ask, range(clients)) for seconds in taken)


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@click.command()
@click.option("--requests", default=400, show_default=True, help="For each question.")
@click.option("--clients", default=2, show_default=True, help="Asking at once.")
def main(requests: int, clients: int) -> None:
    """Measures and prints; status 1 when a p99 is above 50 ms."""
    table = Table("question", "p50 ms", "p99 ms", "max ms")
    worst = 0.0
    with running() as (port, token):
        first = Client(port, token)
        for name, target in questions(first).items():
            taken = measure(lambda: Client(port, token), target, requests, clients)
            p99 = percentile(taken, 0.99)
            worst = max(worst, p99)
            table.add_row(name, *(f"{seconds * 1000:.1f}" for seconds in (statistics.median(taken), p99, taken[-1])))
        first.close()
    Console(width=100).print(table)
    raise SystemExit(worst > BOUND_SECONDS)


if __name__ == "__main__":
    main(prog_name="python -m tests.load.admin_load")
