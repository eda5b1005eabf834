"""A clock that is finer than the event loop's: uvloop's timers know milliseconds, an open loop needs microseconds."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = 0o2004000
COARSE_SECONDS = 0.001
"""Where the kernel has no timerfd: what is due is looked for this often."""


class Ticker:
    """Calls `due(when)` once for each multiple of `interval_seconds` from now on, until closed.

    `when` is the moment meant, in perf_counter seconds; the call may come later, several at once after a busy moment.
    """

    def __init__(self, interval_seconds: float, due: Callable[[float], None]) -> None:
        self._interval_seconds = interval_seconds
        self._due = due
        self._loop = asyncio.get_running_loop()
        self._began = time.perf_counter()
        self._ticks = 0
        self._file = _timer(interval_seconds) if sys.platform == "linux" else None
        if self._file is not None:
            self._loop.add_reader(self._file, self._on_timer, self._file)
        else:
            self._coarse = self._loop.call_later(COARSE_SECONDS, self._on_coarse)

    def close(self) -> None:
        if self._file is None:
            self._coarse.cancel()
        else:
            self._loop.remove_reader(self._file)
            os.close(self._file)

    def _on_timer(self, file: int) -> None:
        os.read(file, 8)  # how often it fired: `_catch_up` asks the clock, which is the measure of latencies too
        self._catch_up()

    def _on_coarse(self) -> None:
        self._coarse = self._loop.call_later(COARSE_SECONDS, self._on_coarse)
        self._catch_up()

    def _catch_up(self) -> None:
        now = time.perf_counter()
        while (when := self._began + (self._ticks + 1) * self._interval_seconds) <= now:
            self._ticks += 1
            self._due(when)


class _Interval(ctypes.Structure):
    """struct itimerspec: how often, and first when, each in seconds and nanoseconds."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns"))


def _timer(interval_seconds: float) -> int:
    """A file that becomes readable every `interval_seconds` (timerfd_create(2); Python has it from 3.13 on)."""
    libc = ctypes.CDLL(None, use_errno=True)
    file = int(libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC))
    if file < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    seconds, nanoseconds = divmod(int(interval_seconds * 1e9), 1_000_000_000)
    wanted = _Interval(seconds, nanoseconds, seconds, nanoseconds)
    if libc.timerfd_settime(file, 0, ctypes.byref(wanted), None):
        raise OSError(ctypes.get_errno(), "timerfd_settime")
    return file
