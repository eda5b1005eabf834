"""The steps of every request, each a few lines over the core; their order stands in server.py.

A step returns None to go on, the answer that ends the request, or a question whose answer has to be waited for: whoever
runs the steps waits, and takes what the question's `result` makes of it for the step's own.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Any, Final

from app import responses
from app.admission import Admission
from app.context import Context, Passing
from app.core.errors import MalformedCredential, MissingCredential, TooManyFailedKeys, Unauthenticated, UnknownKey
from app.core.keys import credential
from app.core.keys.keyring import UNKNOWN, Found
from app.core.limits import announce
from app.core.process.request_id import new_request_id
from app.core.relay import headers
from app.look_up import look_up
from app.message import Message
from app.ready import ReadyResponse, RelayedResponse
from app.relayed import Relayed

_BELIEVABLE_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class KeyQuestion:
    """Whose a key is that memory does not hold."""

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        self._context = context

    def answer(self) -> Awaitable[Found | TooManyFailedKeys]:
        """What is to be awaited. Raises AuthenticationUnavailable."""
        key = _bearer(self._context.message)
        return look_up(self._context, key if isinstance(key, bytes) else b"")

    def result(self, found: Found | TooManyFailedKeys) -> ReadyResponse | None:
        """What the step makes of it."""
        return _judge(self._context, found)


def identify(request: Passing) -> None:
    """Names the request and its client. Only a trusted proxy is believed (TRUSTED_PROXIES)."""
    context = request.context
    context.client_ip = peer = context.peer_ip
    if context.services.settings.trusted_proxies.trusts(peer):
        _believe(context, peer)
    if not context.request_id:
        context.request_id = new_request_id()


def _believe(context: Context, peer: str) -> None:
    fields = context.message.fields
    context.forwarded_for = [value.decode("latin-1") for value in headers.values(fields, b"x-forwarded-for")]
    context.client_ip = context.services.settings.trusted_proxies.client(peer, context.forwarded_for)
    hosts = headers.values(fields, b"x-forwarded-host")
    context.forwarded_host = hosts[-1] if hosts else None
    if headers.values(fields, b"x-forwarded-proto")[-1:] == [b"https"]:
        context.scheme = "https"
    given = headers.values(fields, b"x-request-id")
    if len(given) == 1 and _BELIEVABLE_ID.fullmatch(given[0]):
        context.request_id = given[0].decode()


def authenticate(request: Passing) -> ReadyResponse | KeyQuestion | None:
    """Whose key it is, and whether it may be used now."""
    context = request.context
    if context.is_public:
        return None
    message = context.message
    if message.digest is None:
        key = _bearer(message)
        if isinstance(key, Unauthenticated):
            return responses.error(context, key)
        message.digest = credential.digest(key)
    found: Found | None = context.services.ring.find_digest(message.digest)
    return _judge(context, found) if found is not None else KeyQuestion(context)


def _bearer(message: Message) -> bytes | Unauthenticated:
    """The key that was sent (RFC 6750 section 2.1)."""
    given = message.credentials
    if not given:
        return MissingCredential()
    scheme, _, key = given[0].partition(b" ")
    key = key.strip(b" ")
    if len(given) != 1 or scheme.lower() != b"bearer" or not key or b" " in key:
        return MalformedCredential()
    return key


def _judge(context: Context, found: Found | TooManyFailedKeys) -> ReadyResponse | None:
    if isinstance(found, TooManyFailedKeys):
        return responses.error(context, found)
    if found is UNKNOWN:
        return responses.error(context, UnknownKey())
    context.credential = found
    refusal = credential.refusal(found, context.started_at)
    return responses.error(context, refusal) if refusal is not None else None


def admit(request: Passing) -> ReadyResponse | Admission | None:
    """Whether the organization has a request left. Raises LimiterUnavailable (RATE_LIMIT_FALLBACK=closed)."""
    context = request.context
    if context.credential is None:
        return None
    admission = Admission(context, context.credential)
    return admission if admission.verdict is None else admission.result(admission.verdict)


def stamp(request: Passing, response: Any) -> None:
    """What every answer carries: the request's id, and the limits of a known organization."""
    context = request.context
    lines = b"X-Request-ID: %b\r\n" % context.request_id.encode()
    if context.verdict is not None:
        lines += announce.fields(context.verdict, context.services.settings.rate_limit_ietf_headers)
        head = response.head if isinstance(response, RelayedResponse) else response
        if isinstance(head, Relayed) and head.is_shared_across_origins:
            lines += announce.EXPOSE
    context.stamp = lines
