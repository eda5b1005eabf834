"""What memory a process has, as Linux tells it."""

from __future__ import annotations

import contextlib
import math
import re
from pathlib import Path


def resident_bytes(pid: int) -> float:
    """In memory now; nan where the kernel does not tell."""
    return _bytes(pid, "VmRSS")


def resident_bytes_max(pid: int) -> float:
    """The most that was in memory at any time so far; nan where the kernel does not tell."""
    return _bytes(pid, "VmHWM")


def _bytes(pid: int, name: str) -> float:
    with contextlib.suppress(OSError):
        found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        if found:
            return int(found.group(1)) * 1024.0
    return math.nan
