"""Answers of our own: every error through the one envelope, whoever found it."""

from __future__ import annotations

import time

from sanic import HTTPResponse

from app.core.envelope import JSON, render
from app.core.errors import GatewayError
from app.request import GatewayRequest


def error(request: GatewayRequest, what: GatewayError) -> HTTPResponse:
    """The answer to a refusal or failure (contract section 3)."""
    body, fields = render(what, request.context.request_id, time.time())
    return HTTPResponse(body, status=what.status, headers=dict(fields), content_type=JSON)
