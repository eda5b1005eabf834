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
from app.choice import choose, organization
from app.core.errors import BackendFailed, GatewayError
from app.core.relay import headers
from app.core.relay.answer_reader import SWITCHING
from app.core.relay.balancer import Balancer
from app.core.relay.delivery import Delivery
from app.core.relay.target import Place
from app.core.relay.upstream import Answer, Outgoing
from app.outbound import request_head
from app.ready import ReadyResponse, RelayedResponse
from app.relayed import relayed
from app.request import GatewayRequest
from app.switch import switch


async def proxy(request: GatewayRequest) -> ReadyResponse | None:
    """Answers with what the backend answers. Raises what Delivery raises, and the body's own failure."""
    chosen = choose(request.context)
    if isinstance(chosen, GatewayError):
        return responses.error(request.context, chosen)
    request.exchange.depend_on_client()
    began = time.monotonic()
    body = None if request.message.body is NO_BODY else request.message.body
    await _deliver(request, began, _delivery(request, chosen, began, body).run())
    return None


async def retry(
    request: GatewayRequest,
    balancer: Balancer,
    began: float,
    place: Place,
    failure: BackendFailed,
    body: Outgoing | None,
) -> None:
    """After a first attempt that was begun at `began` without a task and has failed. Raises as `proxy` does."""
    try:
        request.exchange.depend_on_client()
    except BaseException:
        place.leave(failure=failure)
        raise
    await _deliver(request, began, _delivery(request, balancer, began, body).after(place, failure))


def _delivery(request: GatewayRequest, balancer: Balancer, began: float, body: Outgoing | None) -> Delivery:
    services, message, context = request.app.ctx, request.message, request.context
    return Delivery(
        services.upstream,
        balancer,
        partial(request_head, context, organization(context)),
        began,
        message.method,
        body,
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


async def _relay(request: GatewayRequest, answer: Answer) -> None:
    """Head and body to the client. Once the head is out, a failure can only be shown by ending the connection."""
    exchange = request.exchange
    head = relayed(answer.status, answer.reason, answer.fields, answer.framed_by)
    await request.respond(RelayedResponse(head))
    try:
        while not answer.is_complete:
            await exchange.write(answer.take())
            await answer.more()
        if answer.trailers:
            exchange.writer.trailers = headers.trailers(answer.trailers)
        await exchange.write(answer.take(), end_stream=True)
    except (GatewayError, ClientGone) as error:
        log = logger.bind(request_id=request.context.request_id, service=request.context.service)
        log.warning(f"answer cut short: {error.__cause__ or error!r}")
        exchange.fail()
