"""What becomes of exceptions: the contract's answers, and the log line that says what a client must not be told."""

from __future__ import annotations

from typing import Any

from loguru import logger
from sanic.handlers import ErrorHandler

from app import responses
from app.core.errors import BackendTimedOut, BackendUnavailable, GatewayError, InternalError
from app.middleware import identify
from app.ready import ReadyResponse
from app.request import GatewayRequest


class EnvelopeErrorHandler(ErrorHandler):
    """Sanic's error handler: everything raised on the way of a request ends here."""

    def response(self, request: Any, exception: Exception) -> ReadyResponse:
        if not request.context.request_id:  # the head was malformed: no middleware has run
            identify(request)
        return responses.error(request.context, _as_ours(request, exception))


def _as_ours(request: GatewayRequest, exception: Exception) -> GatewayError:
    log = logger.bind(request_id=request.context.request_id)
    if isinstance(exception, (BackendUnavailable, BackendTimedOut)):
        cause = exception.__cause__
        log.bind(service=request.context.service).warning(
            f"{exception.message}: {cause!r}" if cause else exception.message
        )
    if isinstance(exception, GatewayError):
        return exception
    log.opt(exception=exception).error(f"request failed: {type(exception).__name__}")
    return InternalError()
