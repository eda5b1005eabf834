"""The three health endpoints, with the shapes of the public app's."""

from __future__ import annotations

import time
from typing import Final

from sanic import HTTPResponse

from admin import answers
from admin.request import AdminRequest
from app.core.envelope import rfc3339
from app.core.process.version import VERSION

STARTED: Final = time.monotonic()


async def health(request: AdminRequest) -> HTTPResponse:
    """Whether all is well: `degraded` while a dependency is away."""
    away = "unreachable" in request.app.ctx.services.checks().values()
    return answers.json(
        {
            "status": "degraded" if away else "healthy",
            "uptime_seconds": round(time.monotonic() - STARTED, 3),
            "timestamp": rfc3339(time.time()),
            "version": VERSION,
        }
    )


async def ready(request: AdminRequest) -> HTTPResponse:
    """Whether to send requests: 503 while the database was never reached, and while draining."""
    services = request.app.ctx.services
    body = {"ready": services.is_ready, "timestamp": rfc3339(time.time()), "checks": services.checks()}
    return answers.json(body, 200 if services.is_ready else 503)


async def live(request: AdminRequest) -> HTTPResponse:
    """Whether the process answers."""
    return answers.json({"alive": True, "timestamp": rfc3339(time.time())})
