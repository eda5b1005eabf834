"""The steps of every request, each a few lines, in the order of server.py. What a step raises ends the request."""

from __future__ import annotations

import re
import time
from typing import Any, Final

from loguru import logger
from sanic.response import BaseHTTPResponse

from admin.access import require
from admin.endpoint import Endpoint
from admin.reading import read as read_inputs
from admin.request import AdminRequest
from app.core.relay.proxies import address

_BELIEVABLE_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}", re.ASCII)


def _endpoint(request: AdminRequest) -> Endpoint | None:
    """None where nothing is behind the target, or a file of the documentation page."""
    return getattr(request.route.ctx, "endpoint", None) if request.route is not None else None


def identify(request: AdminRequest) -> None:
    """Names the request and its client. Only a trusted proxy is believed (TRUSTED_PROXIES)."""
    proxies = request.app.ctx.services.settings.trusted_proxies
    peer = request.ip
    request.ctx.client_ip = address(peer) or peer
    if not proxies.trusts(peer):
        return
    client = proxies.client(peer, request.headers.getall("x-forwarded-for", []))
    request.ctx.client_ip = address(client) or client
    given = request.headers.getall("x-request-id", [])
    if len(given) == 1 and _BELIEVABLE_ID.fullmatch(given[0]):
        request.ctx.request_id = given[0]


async def authorize(request: AdminRequest) -> None:
    """Whose token it is, and whether its role may do this."""
    endpoint = _endpoint(request)
    if endpoint is None or endpoint.role is None:
        return
    ctx = request.ctx
    fields = request.headers.getall("authorization", [])
    ctx.caller = await request.app.ctx.services.access.caller(fields, ctx.client_ip)
    require(ctx.caller, endpoint.role)


def read(request: AdminRequest) -> None:
    """What the request says, checked."""
    endpoint = _endpoint(request)
    stream: Any = request.stream
    # Sanic runs the steps for a body too that it could not take (too large, malformed), and answers for that later.
    if endpoint is not None and not stream.request_body:
        read_inputs(request, endpoint)


def stamp(request: AdminRequest, response: BaseHTTPResponse) -> None:
    """What every answer carries, and the request's line in the log."""
    response.headers["X-Request-ID"] = request.ctx.request_id
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    if request.app.ctx.services.is_draining:
        stream: Any = request.stream
        stream.keep_alive = False
    _log(request, response)


def _log(request: AdminRequest, response: BaseHTTPResponse) -> None:
    ctx, status = request.ctx, response.status
    fields: dict[str, Any] = {
        "method": request.method,
        "path": request.path,
        "status": status,
        "duration_ms": round((time.monotonic() - ctx.started) * 1000, 3),
        "bytes": len(response.body or b""),
        "client_ip": ctx.client_ip,
        "request_id": ctx.request_id,
        "who": ctx.caller.name if ctx.caller else None,
    }
    level = "INFO" if status < 400 else "WARNING" if status < 500 else "ERROR"
    logger.bind(**fields).log(level, "request")
