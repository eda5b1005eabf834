"""The head of the request that a backend gets: the client's own, less what ends here, plus what it may believe."""

from __future__ import annotations

from app.context import Context
from app.core.model import Backend, Organization
from app.core.relay import headers, routing, upgrade
from app.message import Message


def request_head(context: Context, organization: Organization, backend: Backend) -> bytes:
    """The request line and fields for `backend`, up to and with the empty line."""
    message = context.message
    ours = (
        f"X-Request-ID: {context.request_id}\r\n"
        f"X-Organization-ID: {organization.id}\r\nX-Plan-Tier: {organization.tier}\r\n"
        f"X-Forwarded-For: {_forwarded_for(context)}\r\nX-Forwarded-Proto: {context.scheme}\r\n"
    )
    return b"".join(
        (
            b"%b %b HTTP/1.1\r\nHost: " % (message.method, routing.upstream_target(backend, message.target)),
            backend.authority,
            b"\r\n",
            _onward(message),
            ours.encode("latin-1"),
            b"X-Forwarded-Host: %b\r\n" % host if (host := context.forwarded_host or message.host) else b"",
            _framing(message),
            b"" if message.upgrade is None else upgrade.lines(message.upgrade),
            b"\r\n",
        )
    )


def _onward(message: Message) -> bytes:
    """The client's own fields, less what ends here."""
    if message.onward is None:
        message.onward = b"".join(headers.to_backend(message.fields))
    return message.onward


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
