"""The wish to stop, while `tools/dev` is still starting: a signal is noted, and acted on between two steps.

Before honcho takes the signals over. The handler raises nothing: the exception could hit a process while it starts,
which nobody would then know to end.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

asked = threading.Event()
"""Set by a signal, and when everything is over."""


def listen() -> None:
    """Takes the signals; Ctrl-C also where it is ignored at first, as in a script's background jobs."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_signal)


def _on_signal(number: int, frame: FrameType | None) -> None:
    asked.set()


def end() -> None:
    """Raises SystemExit once a signal has come: to be called where everything that was started is known."""
    if asked.is_set():
        raise SystemExit(0)
