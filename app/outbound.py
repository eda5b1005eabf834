"""The head of the request that a backend gets: the client's own, less what ends here, plus what it may believe."""

from __future__ import annotations

from app.context import Context
from app.core.model import Backend, Organization
from app.core.relay import headers, routing, upgrade
from app.message import Message, Onward


def request_head(context: Context, organization: Organization, backend: Backend) -> bytes:
    """The request line and fields for `backend`, up to and with the empty line."""
    message = context.message
    onward = message.onward
    if onward is None or onward.organization is not organization or onward.backend is not backend:
        onward = message.onward = _onward(context, organization, backend)
    target = routing.upstream_target(backend, message.target)
    return b"".join((message.method, b" ", target, onward.before_id, context.request_id.encode(), onward.after_id))


def _onward(context: Context, organization: Organization, backend: Backend) -> Onward:
    message = context.message
    host = context.forwarded_host or message.host
    before_id = (
        b" HTTP/1.1\r\nHost: ",
        backend.authority,
        b"\r\n",
        *headers.to_backend(message.fields),
        b"X-Request-ID: ",
    )
    ours = (
        f"\r\nX-Organization-ID: {organization.id}\r\nX-Plan-Tier: {organization.tier}\r\n"
        f"X-Forwarded-For: {_forwarded_for(context)}\r\nX-Forwarded-Proto: {context.scheme}\r\n"
    )
    after_id = (
        ours.encode("latin-1"),
        b"X-Forwarded-Host: %b\r\n" % host if host else b"",
        _framing(message),
        b"" if message.upgrade is None else upgrade.lines(message.upgrade),
        b"\r\n",
    )
    return Onward(organization, backend, b"".join(before_id), b"".join(after_id))


def _forwarded_for(context: Context) -> str:
    """The chain as a trusted proxy gave it, and the address that speaks to us; the latter alone from anyone else."""
    peer = context.peer_ip or "unknown"
    return ", ".join((*context.forwarded_for, peer)) if context.forwarded_for else peer


def _framing(message: Message) -> bytes:
    """The body's framing, as the client chose it."""
    length = message.body.length
    if length is None:
        return b"Transfer-Encoding: chunked\r\n"
    return b"Content-Length: %d\r\n" % length if message.has_length else b""
