"""The three health endpoints (contract section 3). They need no key and count against no limit."""

from __future__ import annotations

import time
from typing import Any

import orjson
from sanic import HTTPResponse

from app.core.envelope import JSON, rfc3339
from app.core.process.version import VERSION
from app.request import GatewayRequest

STARTED = time.monotonic()


def _json(body: dict[str, Any], status: int = 200) -> HTTPResponse:
    fields = {"Cache-Control": "no-store"}
    return HTTPResponse(orjson.dumps(body), status=status, headers=fields, content_type=JSON)


async def health(request: GatewayRequest) -> HTTPResponse:
    """200 as long as the gateway serves; `degraded` while a dependency or a target is away."""
    services = request.app.ctx
    targets = services.targets()
    states = [target["state"] for each in targets.values() for target in each]
    is_well = "unreachable" not in services.checks().values() and all(state == "healthy" for state in states)
    return _json(
        {
            "status": "healthy" if is_well else "degraded",
            "uptime_seconds": round(time.monotonic() - STARTED, 3),
            "timestamp": rfc3339(time.time()),
            "version": VERSION,
            "services": targets,
        }
    )


async def ready(request: GatewayRequest) -> HTTPResponse:
    """503 while no key could be checked (the database was never reached) and while draining."""
    services = request.app.ctx
    is_ready = services.can_check_keys and not services.is_draining
    body = {"ready": is_ready, "timestamp": rfc3339(time.time()), "checks": services.checks()}
    return _json(body, 200 if is_ready else 503)


async def live(request: GatewayRequest) -> HTTPResponse:
    return _json({"alive": True, "timestamp": rfc3339(time.time())})
