"""Which service a target belongs to (contract section 6). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from app.core.errors import ServiceNotFound
from app.core.model import Backend
from app.core.process.redaction import redact

NAME_CHARACTERS_MAX = 64
S = TypeVar("S")


class Router(Generic[S]):
    """Chooses among the configured services, whatever stands for them; made once from the settings."""

    def __init__(self, services: Mapping[str, S]) -> None:
        self._by_segment = {name.encode(): service for name, service in services.items()}
        self._only = next(iter(services.values())) if len(services) == 1 else None
        self._otherwise = services.get("default")

    def choose(self, target: bytes) -> S | ServiceNotFound:
        """The service named by the first path segment, else the only one, else `default`, else a refusal.

        `target` is the request target as received, in origin form or `*`. The segment is compared as it was sent: an
        escaped name (`/%61pi`) names nothing, since the backend would see other bytes than we judged by.
        """
        if self._only is not None:
            return self._only
        segment = first_segment(target)
        service = self._by_segment.get(segment, self._otherwise)
        if service is None:
            return ServiceNotFound(redact(segment.decode("ascii", "replace"))[:NAME_CHARACTERS_MAX])
        return service


def first_segment(target: bytes) -> bytes:
    """The bytes between the first slash and the next slash or question mark; empty for `*` and `//x`."""
    path = target.partition(b"?")[0]
    return path[1:].partition(b"/")[0]


def upstream_target(backend: Backend, target: bytes) -> bytes:
    """The target to send: as it came, behind the backend's base path. `*` asks of the server as a whole."""
    return target if target == b"*" or not backend.base_path else backend.base_path.encode() + target
