"""Which backend a target belongs to (contract section 6). Pure."""

from __future__ import annotations

from collections.abc import Mapping

from app.core.errors import ServiceNotFound
from app.core.model import Backend
from app.core.process.redaction import redact

NAME_CHARACTERS_MAX = 64


class Router:
    """Chooses among the configured backends; made once from the settings."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._by_segment = {name.encode(): backend for name, backend in backends.items()}
        only = next(iter(backends.values())) if len(backends) == 1 else None
        self._otherwise = only or backends.get("default")

    def choose(self, target: bytes) -> Backend | ServiceNotFound:
        """The backend named by the first path segment, else the only one, else `default`, else a refusal.

        `target` is the request target as received, in origin form or `*`. The segment is compared as it was sent: an
        escaped name (`/%61pi`) names nothing, since the backend would see other bytes than we judged by.
        """
        segment = first_segment(target)
        backend = self._by_segment.get(segment, self._otherwise)
        if backend is None:
            return ServiceNotFound(redact(segment.decode("ascii", "replace"))[:NAME_CHARACTERS_MAX])
        return backend


def first_segment(target: bytes) -> bytes:
    """The bytes between the first slash and the next slash or question mark; empty for `*` and `//x`."""
    path = target.partition(b"?")[0]
    return path[1:].partition(b"/")[0]


def upstream_target(backend: Backend, target: bytes) -> bytes:
    """The target to send: as it came, behind the backend's base path. `*` asks of the server as a whole."""
    return target if target == b"*" or not backend.base_path else backend.base_path.encode() + target
