"""What the steps of a request learn and the later ones need (`request.context`), up to its log line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, Protocol

from app.core.model import Credential, Verdict
from app.message import Message

HANG_UP_STATUS: Final = 499
"""Logged for a request whose client left before an answer (the number that nginx made customary)."""


class Context:
    """`services` are the app's; `stamp`: the lines that every answer carries; `is_public`: no key is wanted."""

    __slots__ = (
        "backend_seconds",
        "began",
        "client_ip",
        "credential",
        "forwarded_for",
        "forwarded_host",
        "is_public",
        "message",
        "peer_ip",
        "request_id",
        "scheme",
        "service",
        "services",
        "stamp",
        "started_at",
        "verdict",
    )

    def __init__(self, message: Message, peer_ip: str, services: Any) -> None:
        self.message = message
        self.peer_ip = peer_ip
        self.services: Any = services
        self.started_at = time.time()
        self.began = time.monotonic()
        self.request_id = ""
        self.client_ip = ""
        self.scheme = "http"
        self.forwarded_for: Sequence[str] = ()
        self.forwarded_host: bytes | None = None
        self.is_public = False
        self.credential: Credential | None = None
        self.verdict: Verdict | None = None
        self.service: str | None = None
        self.backend_seconds: float | None = None
        self.stamp = b""

    def log(self, status: int, body_bytes: int) -> None:
        """Called once, when the last byte of the answer is sent or nobody is there to take it: writes the log line."""
        message, credential, services = self.message, self.credential, self.services
        organization = credential.organization if credential is not None else None
        line = services.access_line(
            started_at=self.started_at,
            method=message.method.decode("ascii", "replace"),
            path=message.target.partition(b"?")[0].decode("latin-1"),
            status=status or HANG_UP_STATUS,
            duration_seconds=time.monotonic() - self.began,
            body_bytes=body_bytes,
            client_ip=self.client_ip,
            request_id=self.request_id,
            organization_id=organization.id if organization is not None else None,
            tier=organization.tier if organization is not None else None,
            service=self.service,
            key_id=credential.key_id if credential is not None else None,
            backend_seconds=self.backend_seconds,
        )
        services.write(line)


class Passing(Protocol):
    """A request as the steps know it, on the fast path or Sanic's."""

    context: Context
