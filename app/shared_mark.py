"""A mark that one process sets and all of its relatives see: a byte of memory that forks share."""

from __future__ import annotations

import mmap


class SharedMark:
    """To be made before the fork. Needs neither a file nor a descriptor, so it works when there are none to be had."""

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._byte[0] = 1

    @property
    def is_set(self) -> bool:
        return self._byte[0] == 1
