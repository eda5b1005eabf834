"""The admin app's refusals, and what becomes of exceptions: all of them end as the public contract's envelope."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from loguru import logger
from sanic import HTTPResponse
from sanic.constants import HTTP_METHODS
from sanic.exceptions import (
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RequestCancelled,
    RequestTimeout,
    SanicException,
)
from sanic.handlers import ErrorHandler

from admin.request import AdminRequest
from app.core import errors
from app.core.data import rules
from app.core.data.database import StoreUnavailable
from app.core.envelope import JSON, render
from app.core.errors import Forbidden, GatewayError, InternalError, MalformedRequest
from app.core.redis.link import RedisRefusal, RedisUnavailable

Place = tuple[str | int, ...]


class Problem(NamedTuple):
    """One thing that is wrong with a request. `place`: path, query, header or body, then the way to the value."""

    place: Place
    message: str

    def as_json(self) -> dict[str, Any]:
        return {"place": list(self.place), "message": self.message}


class Invalid(GatewayError):
    """The request is understood and cannot be done; `details` lists every problem."""

    status = 422
    message = "the request has problems"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__()
        self.details = {"problems": [problem.as_json() for problem in problems]}


class UnknownToken(errors.Unauthenticated):
    message = "invalid admin token"


class MalformedToken(errors.Unauthenticated):
    message = "invalid Authorization header format, expected 'Bearer <admin_token>'"


class TooManyAttempts(GatewayError):
    """This address has presented so many wrong tokens that the next one is not even looked at."""

    status = 429
    message = "too many failed attempts from this address"

    def __init__(self, wait_seconds: int) -> None:
        super().__init__()
        self.headers = (("Retry-After", str(wait_seconds)),)


class RoleTooLow(Forbidden):
    def __init__(self, role: str, needed: str) -> None:
        super().__init__(f"a token with the role '{role}' may not do this, '{needed}' may")


class NothingHere(GatewayError):
    status = 404
    message = "there is no such endpoint"


class UnknownThing(GatewayError):
    status = 404


class WrongMethod(GatewayError):
    status = 405

    def __init__(self, allowed: str) -> None:
        super().__init__(f"this endpoint takes {allowed}")
        self.headers = (("Allow", allowed),)


class Conflict(GatewayError):
    status = 409


class PreconditionFailed(GatewayError):
    status = 412


class UnsupportedMediaType(GatewayError):
    status = 415
    message = "the body must be JSON, with Content-Type: application/json"


class DatabaseUnavailable(GatewayError):
    """Nothing was written, as far as we know: a commit whose answer got lost may have been done."""

    status = 503
    message = "database temporarily unavailable"
    headers = (("Retry-After", "1"),)


class RedisAway(GatewayError):
    """For the few endpoints that only Redis can answer."""

    status = 503
    message = "Redis cannot be asked now"
    headers = (("Retry-After", "1"),)


_FROM_SANIC: Final[dict[type[SanicException], type[GatewayError]]] = {
    NotFound: NothingHere,
    RequestTimeout: errors.RequestTimedOut,
}


class EnvelopeErrorHandler(ErrorHandler):
    """Sanic's error handler: everything raised on the way of a request ends here."""

    def response(self, request: Any, exception: Exception) -> HTTPResponse:
        return answer(request, _as_ours(request, exception))


def answer(request: AdminRequest, error: GatewayError) -> HTTPResponse:
    """The envelope as a response."""
    body, fields = render(error, request.ctx.request_id, time.time())
    return HTTPResponse(body, status=error.status, headers=dict(fields), content_type=JSON)


def _as_ours(request: AdminRequest, exception: Exception) -> GatewayError:
    log = logger.bind(request_id=request.ctx.request_id)
    match exception:
        case GatewayError():
            return exception
        case rules.Refused():
            return _of_rule(exception)
        case StoreUnavailable():
            log.warning(f"the database did not do it: {exception}")
            return DatabaseUnavailable()
        case RedisUnavailable() | RedisRefusal():
            log.warning(f"Redis did not do it: {exception}")
            return RedisAway()
        case MethodNotAllowed():
            return WrongMethod(", ".join(method for method in HTTP_METHODS if _takes(request, method)))
        case PayloadTooLarge():
            return _too_large(request)
        case RequestCancelled():
            return MalformedRequest()  # nobody reads it: the client hung up in the middle
        case SanicException() if 400 <= exception.status_code < 500:
            return _FROM_SANIC.get(type(exception), MalformedRequest)()
    log.opt(exception=exception).error(f"request failed: {type(exception).__name__}")
    return InternalError()


def _too_large(request: AdminRequest) -> GatewayError:
    """Sanic has one exception for bodies and for heads; of a head that is too large it has made no request."""
    if request.method != "NONE":
        return errors.BodyTooLarge()
    stream: Any = request.stream
    line_bytes = stream.recv_buffer.find(b"\r\n")
    return errors.HeadersTooLarge() if 0 <= line_bytes < stream.HEADER_MAX_SIZE else errors.TargetTooLong()


def _takes(request: AdminRequest, method: str) -> bool:
    """Whether the target takes `method`: Sanic's router tells so only for paths without a parameter."""
    try:
        request.app.router.get(request.path, method, None)
    except SanicException:
        return False
    return True


def _of_rule(refusal: rules.Refused) -> GatewayError:
    match refusal:
        case rules.NotFound():
            return UnknownThing(str(refusal))
        case rules.Conflict():
            return Conflict(str(refusal))
        case rules.Outdated():
            return PreconditionFailed(str(refusal))
        case rules.Invalid():
            return Invalid([Problem(("body", refusal.field), str(refusal))])
    return InternalError()
