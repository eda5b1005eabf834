"""What takes over where the fast path ends: each returns or raises what a handler of Sanic's would."""

from __future__ import annotations

from typing import Any

from app.core.errors import BackendFailed
from app.core.relay.balancer import Balancer
from app.core.relay.delivery import HeldBody
from app.core.relay.peer import Peer
from app.core.relay.target import Place
from app.core.relay.upstream import Answer
from app.proxy import relay, retry
from app.ready import ReadyResponse
from app.request import GatewayRequest


async def ask(request: GatewayRequest, question: Any, steps_done: int) -> Any:
    """A step has a question that takes a while."""
    return await request.app.go_on(request, steps_done, question)


async def proxy(request: GatewayRequest) -> Any:
    """All steps are done, but there is no connection at hand."""
    return await request.route.handler(request)


async def go_on_relaying(request: GatewayRequest, peer: Peer, place: Place) -> None:
    """The answer has begun, or is more than can be written at once."""
    answer = Answer(peer, request.app.ctx.upstream.pool, None)
    answer.place = place
    await relay(request, answer)


async def try_again(
    request: GatewayRequest, balancer: Balancer, began: float, place: Place, failure: BackendFailed, body: bytes
) -> None:
    """The first attempt, with all of `body`, has failed."""
    await retry(request, balancer, began, place, failure, HeldBody(body) if body else None)


async def answer(_: GatewayRequest, response: ReadyResponse) -> ReadyResponse:
    """There is an answer of our own, but the client does not read."""
    return response


async def fail(_: GatewayRequest, error: Exception) -> None:
    """Something was raised."""
    raise error
