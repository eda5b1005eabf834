"""The Procfile's processes side by side, each line of theirs behind a coloured name (honcho)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from honcho.environ import parse_procfile
from honcho.manager import Manager

RETRY_SECONDS = 0.05
STOPPED_BY_SIGNAL = (128 + signal.SIGINT, 128 + signal.SIGTERM)


def processes(procfile: Path) -> dict[str, str]:
    """Name to command line, of those that keep running and that this checkout has the module for.

    `release` runs once, before the others, and is not among them.
    """
    found: dict[str, str] = parse_procfile(procfile.read_text()).processes
    return {name: command for name, command in found.items() if name != "release" and _is_there(command, procfile)}


def _is_there(command: str, procfile: Path) -> bool:
    words = command.split()
    return words[:2] != ["python", "-m"] or (procfile.parent / words[2] / "__main__.py").exists()


class _Processes(Manager):  # type: ignore[misc]
    """honcho's manager with two additions: a companion, and patience with processes that are only just starting."""

    def __init__(self, beside: Callable[[], None]) -> None:
        super().__init__()
        self._beside = beside

    def _start(self) -> None:
        super()._start()  # forks, and a fork of a process with threads can hang: so the thread comes after
        threading.Thread(target=self._beside, daemon=True).start()

    def terminate(self) -> None:
        # A signal that comes before every process has told its pid would end honcho with a KeyError, and nothing else.
        if self._all_started():
            super().terminate()
        else:
            threading.Timer(RETRY_SECONDS, self.terminate).start()


def run(
    commands: Mapping[str, str], environment: Mapping[str, str], folder: Path, beside: Callable[[], None] = lambda: None
) -> int:
    """Runs them until one ends or a signal comes, then stops all (honcho kills what is left after 5 seconds).

    `beside` runs in a thread once all are started. Answers the exit status: 0 after SIGINT, SIGTERM or SIGHUP, else
    that of the process which ended by itself, at least 1.
    """
    manager = _Processes(beside)
    for name, command in commands.items():
        manager.add_process(name, f"exec {command}", env=dict(environment), cwd=str(folder))
    signal.signal(signal.SIGHUP, _as_terminate)  # the terminal's window was closed
    manager.loop()
    return 0 if manager.returncode in STOPPED_BY_SIGNAL else manager.returncode or 1


def _as_terminate(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
