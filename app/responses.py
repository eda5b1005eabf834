"""Answers of our own: every error through the one envelope, whoever found it."""

from __future__ import annotations

import re
import time
from typing import Final

from app.context import Context
from app.core.envelope import JSON, PROBLEM, render, render_problem
from app.core.errors import GatewayError, Headers, RateLimited
from app.core.relay import headers
from app.ready import ReadyResponse

_NOT_WANTED: Final = re.compile(rb"q=0(\.0{0,3})?", re.IGNORECASE)


def error(context: Context, what: GatewayError) -> ReadyResponse:
    """The answer to a refusal or failure (contract section 3)."""
    request_id, now = context.request_id, time.time()
    if isinstance(what, RateLimited) and _asks_for_problem(context):
        return _ready(what.status, PROBLEM, *render_problem(what, request_id, now))
    return _ready(what.status, JSON, *render(what, request_id, now))


def _ready(status: int, content_type: str, body: bytes, fields: Headers) -> ReadyResponse:
    lines = [f"{name}: {value}\r\n".encode() for name, value in (*fields, ("Content-Type", content_type))]
    return ReadyResponse(status, lines, body)


def _asks_for_problem(context: Context) -> bool:
    """Whether Accept names the type itself: a wildcard takes what everybody gets."""
    for accepted in b",".join(headers.values(context.message.fields, b"accept")).split(b","):
        kind, *parameters = (part.strip(b" \t") for part in accepted.split(b";"))
        if kind.lower() == PROBLEM.encode() and not any(_NOT_WANTED.fullmatch(each) for each in parameters):
            return True
    return False
