"""The one handler: chooses the service, forwards the request, relays the answer as it comes."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from loguru import logger

from app import responses
from app.body import NO_BODY, ClientGone
from app.core.errors import GatewayError, InternalError
from app.core.model import Organization
from app.core.relay import headers
from app.core.relay.balancer import Balancer
from app.core.relay.delivery import Delivery
from app.core.relay.peer import SWITCHING
from app.core.relay.upstream import Answer, Upstream
from app.outbound import request_head
from app.ready import ReadyResponse, RelayedResponse
from app.request import GatewayRequest
from app.services import Services
from app.switch import switch


async def proxy(request: GatewayRequest) -> ReadyResponse | None:
    """Answers with what the backend answers. Raises what Delivery raises, and the body's own failure."""
    services: Services = request.app.ctx
    credential, exchange, body = request.context.credential, request.exchange, request.message.body
    if credential is None:
        raise InternalError("proxy before authenticate")
    chosen = services.router.choose(request.raw_url)
    if isinstance(chosen, GatewayError):
        return responses.error(request, chosen)
    request.context.service = chosen.name
    too_large = body.limit(services.settings.request_bytes_max) if body is not NO_BODY else None
    if too_large is not None:
        return responses.error(request, too_large)
    exchange.depend_on_client()
    try:
        answer = await _forward(request, services.upstream, chosen, credential.organization)
    except ClientGone as error:
        raise asyncio.CancelledError from error
    try:
        await (_relay if answer.status != SWITCHING else switch)(request, answer)
    finally:
        await answer.close()
    return None


async def _forward(
    request: GatewayRequest, upstream: Upstream, balancer: Balancer, organization: Organization
) -> Answer:
    message, exchange, began = request.message, request.exchange, time.monotonic()
    nudge = asyncio.create_task(exchange.promise_continue()) if message.expects_continue else None
    try:
        delivery = Delivery(
            upstream,
            balancer,
            partial(request_head, request, organization),
            began,
            message.method,
            None if message.body is NO_BODY else message.body,
            exchange.send_interim,
            message.upgrade,
        )
        return await delivery.run()
    finally:
        request.context.backend_seconds = time.monotonic() - began
        if nudge is not None:
            nudge.cancel()


async def _relay(request: GatewayRequest, answer: Answer) -> None:
    """Head and body to the client. Once the head is out, a failure can only be shown by ending the connection."""
    exchange = request.exchange
    fields = headers.to_client(answer.fields, has_length=answer.status != 204)
    is_shared = headers.has_name(answer.fields, b"access-control-allow-origin")
    await request.respond(RelayedResponse(answer.status, answer.reason, fields, answer.framed_by, is_shared))
    try:
        while not answer.is_complete:
            await exchange.write(answer.take())
            await answer.more()
        if answer.trailers:
            exchange.trailers = headers.trailers(answer.trailers)
        await exchange.write(answer.take(), end_stream=True)
    except (GatewayError, ClientGone) as error:
        log = logger.bind(request_id=request.context.request_id, service=request.context.service)
        log.warning(f"answer cut short: {error.__cause__ or error!r}")
        exchange.fail()
