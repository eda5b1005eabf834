"""A backend's answer as the client gets it, but for what is ours to say. Pure."""

from __future__ import annotations

from app.core.relay import headers
from app.core.relay.answer_reader import Fields, Framing
from app.core.relay.known_lines import KnownHead


class Relayed:
    """`lines` are its fields; `framed_by` says how its body ends.

    `is_shared_across_origins`: a browser's script of another origin may read it (Fetch standard, CORS protocol).
    """

    __slots__ = ("framed_by", "is_shared_across_origins", "lines", "reason", "status")

    def __init__(
        self, status: int, reason: bytes, lines: list[bytes], framed_by: Framing, *, is_shared_across_origins: bool
    ) -> None:
        self.status = status
        self.reason = reason
        self.lines = lines
        self.framed_by = framed_by
        self.is_shared_across_origins = is_shared_across_origins


def relayed(status: int, reason: bytes, fields: Fields, framed_by: Framing, known: KnownHead | None = None) -> Relayed:
    """What passes of a backend's head; of a `known` one that is known too."""
    if known is not None:
        return Relayed(status, reason, [known.passed], framed_by, is_shared_across_origins=known.shares)
    return Relayed(
        status,
        reason,
        headers.to_client(fields, has_length=status != 204),
        framed_by,
        is_shared_across_origins=headers.has_name(fields, b"access-control-allow-origin"),
    )
