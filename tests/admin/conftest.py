"""The admin app as its users run it: one process per test module, over a database of its own."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import psycopg
import pytest

from tests.backend import Backend
from tests.conftest import with_database
from tests.gateway import STATIC_KEY, Gateway
from tools.embedded import RedisServer

TOKENS = {role: secrets.token_urlsafe(32) for role in ("viewer", "editor", "owner")}
ADMIN_TOKENS = ",".join(f"{role}-1:{role}:{token}" for role, token in TOKENS.items())
NOWHERE = "00000000-0000-0000-0000-0000000000ff"

_numbers = itertools.count(1)


class Admin(Gateway):
    """`python -m admin` on `database_url`, with three tokens; asked over HTTP, as the owner unless told otherwise."""

    def __init__(self, folder: Path, database_url: str, **environment: str) -> None:
        self.database_url = database_url
        wanted = {"DATABASE_URL": database_url, "ADMIN_TOKENS": ADMIN_TOKENS, **environment}
        super().__init__(folder, wanted, module="admin")
        self.environment["ADMIN_PORT"] = str(self.port)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20, trust_env=False)

    def call(
        self, method: str, path: str, body: Any = None, *, role: str | None = "owner", **fields: str
    ) -> httpx.Response:
        """One request. Underscores in field names become hyphens; `role` None sends no token."""
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        if role is not None:
            headers.setdefault("Authorization", f"Bearer {TOKENS[role]}")
        return self.http.request(method, path, json=body, headers=headers)

    def organization(self, **values: Any) -> dict[str, Any]:
        """A new organization."""
        body = {"name": "Acme", "tier": "basic", **values}
        return self.made(self.call("POST", "/v1/organizations", body))

    def key(self, organization_id: str | None = None, **values: Any) -> dict[str, Any]:
        """A new key, of a new organization unless told otherwise."""
        unit_id = organization_id or self.organization()["id"]
        return self.made(self.call("POST", "/v1/keys", {"organization_id": unit_id, "name": "a key", **values}))

    @staticmethod
    def made(answer: httpx.Response) -> dict[str, Any]:
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def audit(self, subject_id: str) -> list[dict[str, Any]]:
        """The audit lines about one thing, the latest first."""
        items: list[dict[str, Any]] = self.call("GET", f"/v1/audit?subject_id={subject_id}").json()["items"]
        return items

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.http.close()
        super().__exit__(*exception)


@pytest.fixture(scope="module")
def module_database(postgres_uri: str) -> Iterator[str]:
    """A migrated database of this module's own."""
    name = f"admin_{next(_numbers)}"
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template_gateway")
        yield with_database(postgres_uri, name)
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory, module_database: str, redis_server: RedisServer) -> Iterator[Admin]:
    """This module's admin app, with Redis."""
    with Admin(tmp_path_factory.mktemp("admin"), module_database, REDIS_URL=redis_server.url) as started:
        yield started


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, module_database: str, redis_server: RedisServer
) -> Iterator[Gateway]:
    """A gateway of two workers over this module's database and Redis, with a static key and a backend that says ok."""
    with Backend() as backend:
        environment = {
            "DATABASE_URL": module_database,
            "REDIS_URL": redis_server.url,
            "BACKEND_URLS": f"api={backend.url}",
            "VALID_API_KEYS": f"{STATIC_KEY}:org_static:premium",
            "WEB_CONCURRENCY": "2",
        }
        with Gateway(tmp_path_factory.mktemp("gateway"), environment) as started:
            yield started


def problems(answer: httpx.Response) -> dict[tuple[Any, ...], str]:
    """The problems of a 422 by their places."""
    assert answer.status_code == 422, answer.text
    found = {tuple(each["place"]): each["message"] for each in answer.json()["error"]["details"]["problems"]}
    assert found
    return found
