"""The steps of every request, each a few lines over the core; their order stands in server.py.

A step returns None to go on, or the answer that ends the request.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Final

from sanic.response import BaseHTTPResponse

from app import responses
from app.admission import Admission
from app.core.errors import MalformedCredential, MissingCredential, TooManyFailedKeys, UnknownKey
from app.core.keys import credential
from app.core.keys.keyring import UNKNOWN, Found
from app.core.limits import announce
from app.core.process.request_id import new_request_id
from app.core.relay import headers
from app.ready import ReadyResponse, RelayedResponse
from app.request import GatewayRequest

_BELIEVABLE_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


def identify(request: GatewayRequest) -> None:
    """Names the request and its client. Only a trusted proxy is believed (TRUSTED_PROXIES)."""
    ctx = request.context
    ctx.client_ip = peer = request.peer_ip
    if request.app.ctx.settings.trusted_proxies.trusts(peer):
        _believe(request, peer)
    if not ctx.request_id:
        ctx.request_id = new_request_id()


def _believe(request: GatewayRequest, peer: str) -> None:
    ctx, fields = request.context, request.message.fields
    ctx.forwarded_for = [value.decode("latin-1") for value in headers.values(fields, b"x-forwarded-for")]
    ctx.client_ip = request.app.ctx.settings.trusted_proxies.client(peer, ctx.forwarded_for)
    hosts = headers.values(fields, b"x-forwarded-host")
    ctx.forwarded_host = hosts[-1] if hosts else None
    if headers.values(fields, b"x-forwarded-proto")[-1:] == [b"https"]:
        ctx.scheme = "https"
    given = headers.values(fields, b"x-request-id")
    if len(given) == 1 and _BELIEVABLE_ID.fullmatch(given[0]):
        ctx.request_id = given[0].decode()


def authenticate(request: GatewayRequest) -> ReadyResponse | Awaitable[ReadyResponse | None] | None:
    """Whose key it is, and whether it may be used now. Raises AuthenticationUnavailable."""
    if request.route is None or request.route.ctx.is_public:
        return None
    given = request.message.credentials
    if not given:
        return responses.error(request, MissingCredential())
    scheme, _, key = given[0].partition(b" ")
    key = key.strip(b" ")
    if len(given) != 1 or scheme.lower() != b"bearer" or not key or b" " in key:
        return responses.error(request, MalformedCredential())
    found = request.app.ctx.ring.find(key)
    return _judge(request, found) if found is not None else _look_up_and_judge(request, key)


def _judge(request: GatewayRequest, found: Found | TooManyFailedKeys) -> ReadyResponse | None:
    if isinstance(found, TooManyFailedKeys):
        return responses.error(request, found)
    if found is UNKNOWN:
        return responses.error(request, UnknownKey())
    request.context.credential = found
    refusal = credential.refusal(found, request.context.started_at)
    return responses.error(request, refusal) if refusal else None


async def _look_up_and_judge(request: GatewayRequest, key: bytes) -> ReadyResponse | None:
    return _judge(request, await _look_up(request, key))


async def _look_up(request: GatewayRequest, key: bytes) -> Found | TooManyFailedKeys:
    """Beyond memory, unless too many wrong keys came from this address: then the database is not asked."""
    ring, failed_keys, address = request.app.ctx.ring, request.app.ctx.failed_keys, request.context.client_ip
    wait_seconds = failed_keys.wait_seconds(address)
    if wait_seconds and not ring.has_met(key):
        return TooManyFailedKeys(wait_seconds)
    is_repeated = ring.is_reading(key)
    found: Found = await ring.fetch(key)
    if found is UNKNOWN and not is_repeated:
        failed_keys.note(address)
    return found


def admit(request: GatewayRequest) -> ReadyResponse | Admission | None:
    """Whether the organization has a request left. Raises LimiterUnavailable (RATE_LIMIT_FALLBACK=closed)."""
    found = request.context.credential
    if found is None:
        return None
    admission = Admission(request, found)
    return admission if admission.verdict is None else admission.result()


def stamp(request: GatewayRequest, response: BaseHTTPResponse) -> None:
    """What every answer carries: the request's id, and the limits of a known organization."""
    ctx = request.context
    lines = b"X-Request-ID: %b\r\n" % ctx.request_id.encode()
    if ctx.verdict is not None:
        lines += announce.fields(ctx.verdict, request.app.ctx.settings.rate_limit_ietf_headers)
        if isinstance(response, RelayedResponse) and response.is_shared_across_origins:
            lines += announce.EXPOSE
    request.exchange.stamp = lines
