"""A backend's 101: the client gets it, and the connection stops being HTTP. Sanic sees none of what follows."""

from __future__ import annotations

import asyncio

from app.core.relay import headers, upgrade
from app.core.relay.tunnel import Tunnel
from app.core.relay.upstream import Answer
from app.ready import RelayedResponse
from app.relayed import Relayed
from app.request import GatewayRequest
from app.tunnels import Tunnels


async def switch(request: GatewayRequest, answer: Answer) -> None:
    """Joins client and backend, and returns when both are gone. Raises BackendUnavailable when the backend is already.

    The log's line counts what the client was sent; its time is that of the whole tunnel.
    """
    exchange, protocol = request.exchange, request.message.upgrade or b""
    door = exchange.connection
    await door._can_write.wait()  # what was answered before goes first: the door will not hear when it has gone
    exchange.depend_on_client()
    tunnel = Tunnel(
        is_websocket=protocol.lower() == upgrade.WEBSOCKET,
        clock=asyncio.get_running_loop().time,
        on_end=lambda: door.connection_lost(None),
    )
    backend = answer.hand_over(tunnel.backend)
    lines = [*headers.to_client(answer.fields, has_length=False), upgrade.lines(protocol)]
    await _answer(request, Relayed(answer.status, answer.reason, lines, "none", is_shared_across_origins=False))
    tunnel.join(door.hand_over(tunnel.client), backend)  # nothing has waited since the backend's hand_over
    tunnels: Tunnels = request.app.ctx.tunnels
    tunnels.add(tunnel, _key(request), request.context.request_id)
    try:
        await tunnel.ended.wait()
    finally:
        tunnels.discard(tunnel)
        exchange.writer.body_bytes = tunnel.client.sent_bytes
        tunnel.abort()  # for who was cut; what has ended stays as it is


async def _answer(request: GatewayRequest, head: Relayed) -> None:
    """Through the steps that every answer takes: it carries the request's id and the limits."""
    await request.respond(RelayedResponse(head))
    request.exchange.switch_protocols(head)


def _key(request: GatewayRequest) -> bytes:
    """The key, as `authenticate` has found it to be valid."""
    return request.message.credentials[0].partition(b" ")[2].strip(b" ")
