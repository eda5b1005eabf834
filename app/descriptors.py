"""File descriptors: a connection and its request to a backend take one each, and a system's default may be 1,024."""

from __future__ import annotations

import contextlib
import resource
from typing import Final

RESERVED: Final = 256
"""For all else: the listener, the log, PostgreSQL, Redis, connections that are being refused."""
PER_CONNECTION: Final = 2


def make_room(connections_max: int) -> None:
    """Raises this process's soft limit to what `connections_max` need, as far as the hard one allows."""
    wanted = connections_max * PER_CONNECTION + RESERVED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS says that its hard limit is infinite, and allows less
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))


def connections_possible() -> int:
    """For how many connections the limit of this process has room."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 if soft == resource.RLIM_INFINITY else max(1, (soft - RESERVED) // PER_CONNECTION)
