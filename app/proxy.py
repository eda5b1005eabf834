"""The one handler: chooses the service, forwards the request, relays the answer as it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any

from loguru import logger

from app import responses
from app.body import NO_BODY, ClientGone
from app.core.errors import BackendFailed, GatewayError, InternalError
from app.core.model import Organization
from app.core.relay import headers
from app.core.relay.balancer import Balancer
from app.core.relay.delivery import Delivery
from app.core.relay.peer import SWITCHING, Peer
from app.core.relay.target import Place
from app.core.relay.upstream import Answer
from app.outbound import request_head
from app.ready import ReadyResponse, RelayedResponse
from app.request import GatewayRequest
from app.switch import switch


async def proxy(request: GatewayRequest) -> ReadyResponse | None:
    """Answers with what the backend answers. Raises what Delivery raises, and the body's own failure."""
    chosen = choose(request)
    if isinstance(chosen, ReadyResponse):
        return chosen
    request.exchange.depend_on_client()
    began = time.monotonic()
    await _deliver(request, began, _delivery(request, chosen, began).run())
    return None


def choose(request: GatewayRequest) -> Balancer | ReadyResponse:
    """The service that the request is for, or why it is not passed on."""
    services, context, body = request.app.ctx, request.context, request.message.body
    chosen: Balancer | GatewayError = services.router.choose(request.raw_url)
    if isinstance(chosen, GatewayError):
        return responses.error(request, chosen)
    context.service = chosen.name
    too_large = body.limit(services.settings.request_bytes_max) if body is not NO_BODY else None
    return chosen if too_large is None else responses.error(request, too_large)


def organization(request: GatewayRequest) -> Organization:
    """For whom the backend works."""
    if request.context.credential is None:
        raise InternalError("proxy before authenticate")
    return request.context.credential.organization


async def proxy_again(
    request: GatewayRequest, balancer: Balancer, began: float, place: Place, failure: BackendFailed
) -> None:
    """After a first attempt that was begun at `began` without a task and has failed. Raises as `proxy` does."""
    try:
        request.exchange.depend_on_client()
    except BaseException:
        place.leave(failure=failure)
        raise
    await _deliver(request, began, _delivery(request, balancer, began).after(place, failure))


def _delivery(request: GatewayRequest, balancer: Balancer, began: float) -> Delivery:
    services, message = request.app.ctx, request.message
    return Delivery(
        services.upstream,
        balancer,
        partial(request_head, request, organization(request)),
        began,
        message.method,
        None if message.body is NO_BODY else message.body,
        request.exchange.send_interim,
        message.upgrade,
    )


async def _deliver(request: GatewayRequest, began: float, attempts: Coroutine[Any, Any, Answer]) -> None:
    """The request's attempts, and the answer to the client."""
    nudge = asyncio.create_task(request.exchange.promise_continue()) if request.message.expects_continue else None
    try:
        answer = await attempts
    except ClientGone as error:
        raise asyncio.CancelledError from error
    finally:
        request.context.backend_seconds = time.monotonic() - began
        if nudge is not None:
            nudge.cancel()
    await relay(request, answer)


async def relay(request: GatewayRequest, answer: Answer) -> None:
    """An answer that has begun, to its end."""
    try:
        request.exchange.depend_on_client()
        await (_relay if answer.status != SWITCHING else switch)(request, answer)
    finally:
        await answer.close()


def relayed(answer: Answer | Peer) -> RelayedResponse:
    """The backend's head as the client gets it."""
    fields = headers.to_client(answer.fields, has_length=answer.status != 204)
    is_shared = headers.has_name(answer.fields, b"access-control-allow-origin")
    return RelayedResponse(answer.status, answer.reason, fields, answer.framed_by, is_shared)


async def _relay(request: GatewayRequest, answer: Answer) -> None:
    """Head and body to the client. Once the head is out, a failure can only be shown by ending the connection."""
    exchange = request.exchange
    await request.respond(relayed(answer))
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
