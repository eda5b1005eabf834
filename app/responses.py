"""Answers of our own: every error through the one envelope, whoever found it."""

from __future__ import annotations

import re
import time
from typing import Final

from sanic import HTTPResponse

from app.core.envelope import JSON, PROBLEM, render, render_problem
from app.core.errors import GatewayError, RateLimited
from app.core.relay import headers
from app.request import GatewayRequest

_NOT_WANTED: Final = re.compile(rb"q=0(\.0{0,3})?", re.IGNORECASE)


def error(request: GatewayRequest, what: GatewayError) -> HTTPResponse:
    """The answer to a refusal or failure (contract section 3)."""
    request_id, now = request.context.request_id, time.time()
    if isinstance(what, RateLimited) and _asks_for_problem(request):
        body, fields = render_problem(what, request_id, now)
        return HTTPResponse(body, status=what.status, headers=dict(fields), content_type=PROBLEM)
    body, fields = render(what, request_id, now)
    return HTTPResponse(body, status=what.status, headers=dict(fields), content_type=JSON)


def _asks_for_problem(request: GatewayRequest) -> bool:
    """Whether Accept names the type itself: a wildcard takes what everybody gets."""
    for accepted in b",".join(headers.values(request.message.fields, b"accept")).split(b","):
        kind, *parameters = (part.strip(b" \t") for part in accepted.split(b";"))
        if kind.lower() == PROBLEM.encode() and not any(_NOT_WANTED.fullmatch(each) for each in parameters):
            return True
    return False
