"""File descriptors: how many this process may have, and whether they are about to run out."""

from __future__ import annotations

import contextlib
import os
import resource
from typing import Final

WANTED: Final = 65_536
"""A worker with so many is busy long before it runs out. Many systems give 1,024 unless a process asks for more."""
SPARE_SHARE: Final = 0.5
"""Of what connections may take, kept for their requests: each may need one to a backend."""
RESERVED: Final = 256
"""For all else: the listener, the log, PostgreSQL, Redis, connections that are being refused."""
PER_CONNECTION: Final = 2
"""A client's, and its request's to a backend."""


def raise_limit() -> None:
    """Takes as many as the system lets an unprivileged process have, up to WANTED."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections_possible() -> int:
    """For how many connections the limit of this process has room."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 if soft == resource.RLIM_INFINITY else max(1, (soft - RESERVED) // PER_CONNECTION)


class Descriptors:
    """Asks the kernel, which gives the lowest free number: when that is high, all below it are taken."""

    def __init__(self, any_open: int) -> None:
        """`any_open`: a descriptor that stays open. What is open now counts as what the process itself needs."""
        self._any_open = any_open
        self._own_count = self._lowest_free()

    def are_short(self) -> bool:
        """Whether only the spare ones are left, if those. Two system calls, about a microsecond."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return limit >= 0 and self._lowest_free() >= limit - max(0, limit - self._own_count) * SPARE_SHARE

    def _lowest_free(self) -> float:
        try:
            lowest = os.dup(self._any_open)
        except OSError:  # EMFILE, or ENFILE: the whole system has run out
            return float("inf")
        os.close(lowest)
        return lowest
