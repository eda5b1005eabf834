"""Two gateways and the admin app over one database and one Redis, each as a process of its own."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path
from typing import Any, Final, Self

import httpx

from tests.backend import Backend
from tests.gateway import Gateway, until
from tools.embedded import RedisServer

TOKENS: Final = {role: secrets.token_urlsafe(32) for role in ("viewer", "editor", "owner")}
WORKERS: Final = 3
"""Two in the first gateway, one in the second: a change has to reach siblings, and the gateway next door."""


class Tenant:
    """An organization with one key, made through the admin app."""

    def __init__(self, admin: httpx.Client, tier: str) -> None:
        self.organization: dict[str, Any] = made(admin.post("/v1/organizations", json={"name": "Acme", "tier": tier}))
        self.id: str = self.organization["id"]
        self.key: dict[str, Any] = made(
            admin.post("/v1/keys", json={"organization_id": self.id, "name": "first", "env": "test"})
        )
        self.secret: str = self.key["api_key"]


def made(answer: httpx.Response) -> Any:
    """The body of a 2xx. Raises AssertionError with the body of any other."""
    assert answer.is_success, f"{answer.status_code} {answer.text}"
    return answer.json()


class Fleet:
    """A context manager. `gateways` are two, `admin` is a client of the admin app with an owner's token."""

    def __init__(self, folder: Path, database_url: str, redis: RedisServer) -> None:
        self.database_url = database_url
        self.redis = redis
        self._folder = folder
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            backend = stack.enter_context(Backend())
            shared = {"DATABASE_URL": self.database_url, "REDIS_URL": self.redis.url}
            first = {**shared, "BACKEND_URLS": f"api={backend.url}", "WEB_CONCURRENCY": "2"}
            tokens = ",".join(f"{role}:{role}:{token}" for role, token in TOKENS.items())
            self.gateways = tuple(
                stack.enter_context(Gateway(self._folder / name, environment))
                for name, environment in (("one", first), ("two", {**first, "WEB_CONCURRENCY": "1"}))
            )
            process = stack.enter_context(
                Gateway(self._folder / "admin", {**shared, "ADMIN_TOKENS": tokens}, module="admin")
            )
            self.process = process
            self.admin = stack.enter_context(client(process.port))
            until(lambda: len(self.workers()) == WORKERS, "three workers to be present")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def workers(self) -> list[dict[str, Any]]:
        answer = self.admin.get("/v1/gateways")
        return list(answer.json()["items"]) if answer.status_code == 200 else []

    def explain(self, key: str) -> Any:
        return made(self.admin.post("/v1/explain", json={"api_key": key}))

    def warm(self, key: str) -> None:
        """Until every worker holds the key in memory."""

        def is_held_by_all() -> bool:
            for gateway in self.gateways:
                gateway.get("/api/x", key=key)
            answers = self.explain(key)["workers"]["answers"]
            return [answer["held_as"] for answer in answers] == ["cached"] * WORKERS

        until(is_held_by_all, "every worker to hold the key")


def client(port: int, role: str = "owner") -> httpx.Client:
    """Of the admin app, with the token of `role`."""
    headers = {"Authorization": f"Bearer {TOKENS[role]}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20)
