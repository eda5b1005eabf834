"""Where a request is to go: the service that it names, or why it is not passed on. No I/O."""

from __future__ import annotations

from app.body import NO_BODY
from app.context import Context
from app.core.errors import GatewayError, InternalError
from app.core.model import Organization
from app.core.relay.balancer import Balancer
from app.core.relay.routing import Router


def choose(context: Context) -> Balancer | GatewayError:
    """The service, or what to answer instead. From here on its body is bounded."""
    services, body = context.services, context.message.body
    router: Router[Balancer] = services.router
    chosen: Balancer | GatewayError = router.choose(context.message.target)
    if isinstance(chosen, GatewayError):
        return chosen
    context.service = chosen.name
    if body is NO_BODY:
        return chosen
    return body.limit(services.settings.request_bytes_max) or chosen


def organization(context: Context) -> Organization:
    """For whom the backend is asked to work."""
    if context.credential is None:
        raise InternalError("proxy before authenticate")
    return context.credential.organization
