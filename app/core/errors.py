"""Every answer that is not a backend's: its status, public text and headers stand here and nowhere else.

A refusal (the caller may not) is returned as a value, a failure (something broke) is raised; both are GatewayErrors,
and `envelope.render` is the only place that turns one into bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

Headers = tuple[tuple[str, str], ...]


class GatewayError(Exception):
    """The root. `status` and `message` go to the client as they are: nothing internal may stand in them."""

    status: ClassVar[int] = 500
    message: str = "internal server error"
    headers: Headers = ()
    details: Mapping[str, Any] | None = None
    decided_at: int | None = None
    """Unix seconds by the clock that decided, where that is not ours: the envelope's timestamp then agrees with it."""

    def __init__(self, message: str | None = None) -> None:
        if message is not None:
            self.message = message
        super().__init__(self.message)


class InternalError(GatewayError):
    """Ours: a bug. The log has its traceback under the request id."""


# --- the request itself ---------------------------------------------------------------------------------------------


class MalformedRequest(GatewayError):
    """No gateway should forward this. The message names what is wrong, never the bytes that were wrong."""

    status = 400
    message = "malformed request"


class RequestTimedOut(GatewayError):
    """The client took too long to send its head or body (RFC 9110 section 15.5.9)."""

    status = 408
    message = "request timeout"


class BodyTooLarge(GatewayError):
    status = 413
    message = "request body too large"


class TargetTooLong(GatewayError):
    status = 414
    message = "request target too long"


class HeadersTooLarge(GatewayError):
    status = 431
    message = "request headers too large"


# --- who asks -------------------------------------------------------------------------------------------------------


class Unauthenticated(GatewayError):
    """RFC 9110 section 15.5.2: a 401 names the scheme that would do."""

    status = 401
    headers = (("WWW-Authenticate", "Bearer"),)


class MissingCredential(Unauthenticated):
    message = "missing Authorization header"


class MalformedCredential(Unauthenticated):
    message = "invalid Authorization header format, expected 'Bearer <api_key>'"


class Forbidden(GatewayError):
    status = 403


class UnknownKey(Forbidden):
    message = "invalid API key"


class RevokedKey(Forbidden):
    message = "API key has been revoked"


class ExpiredKey(Forbidden):
    message = "API key has expired"


class InactiveOrganization(Forbidden):
    message = "organization is inactive"


class TooManyFailedKeys(GatewayError):
    """Wrong keys came from this address, one after the other: this one is not looked up, whosever it is."""

    status = 429
    message = "too many failed API keys from this address"

    def __init__(self, wait_seconds: int) -> None:
        super().__init__()
        self.headers = (("Retry-After", str(wait_seconds)),)


class AuthenticationUnavailable(GatewayError):
    """The key is not in memory and the database does not answer."""

    status = 503
    message = "authentication service temporarily unavailable"
    headers = (("Retry-After", "1"),)


# --- how many ---------------------------------------------------------------------------------------------------------


class TooManyConnections(GatewayError):
    """The worker, or the client's address, has as many as it may have, and all are busy."""

    status = 503
    message = "too many connections"
    headers = (("Retry-After", "1"),)


# --- how much -------------------------------------------------------------------------------------------------------


class RateLimited(GatewayError):
    """Built from a Verdict by `announce.refusal`, which fills message, details, Retry-After and `violated`."""

    status = 429
    message = "Rate limit exceeded"
    violated: tuple[str, ...] = ()
    """The policies that have no room left, by their names in RateLimit-Policy."""


class LimiterUnavailable(GatewayError):
    """RATE_LIMIT_FALLBACK=closed and Redis away: refused, and not the caller's fault, so not a 429."""

    status = 503
    message = "rate limiting service temporarily unavailable"
    headers = (("Retry-After", "1"),)


# --- where to -------------------------------------------------------------------------------------------------------


class ServiceNotFound(GatewayError):
    status = 404

    def __init__(self, name: str) -> None:
        super().__init__(f"service '{name}' not found")


class BackendBusy(GatewayError):
    """Every target has as many requests as it may, and the queue for them is full or took too long."""

    status = 503
    message = "backend service at capacity"
    headers = (("Retry-After", "1"),)


Progress = Literal["unsent", "unanswered", "answering"]


class BackendFailed(GatewayError):
    """The attempt at one backend came to nothing. What exactly goes to the log as the exception's cause."""

    progress: Progress = "unsent"
    """How far it had come: not a byte of the request was sent; not a byte of an answer had come; or some had.

    "unsent" after a kept connection: it ended, or spoke unasked, while the request waited to be written.
    """
    was_kept = False
    """Whether the connection had served a request before: such a one may have been closed just now (keep-alive)."""

    @property
    def was_dropped(self) -> bool:
        """Whether all that happened is that a kept connection ended before its request was sent: nobody's fault."""
        return self.was_kept and self.progress == "unsent"


class BackendUnavailable(BackendFailed):
    """Refused, reset, or an answer that is no HTTP."""

    status = 502
    message = "backend service unavailable"


class BackendTimedOut(BackendFailed):
    status = 504
    message = "backend service timeout"
