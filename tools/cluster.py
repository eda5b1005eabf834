"""A PostgreSQL cluster that may be stopped, killed and frozen; its URL stays the same over a restart."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Self

from tools.embedded import postgres


class Cluster:
    """Runs from entering until leaving; `url` names its maintenance database."""

    def __init__(self, folder: Path) -> None:
        self.url = ""
        self._folder = folder
        self._server = contextlib.ExitStack()

    def start(self) -> None:
        """Returns once the server accepts connections."""
        self.url = self._server.enter_context(postgres(self._folder))

    def stop(self) -> None:
        """Ends the server in good order: its clients are told."""
        self._server.close()

    def kill(self) -> None:
        """Ends every process of it at once, as a machine that loses power would."""
        ended = self._signal(signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in ended):
            if time.monotonic() > deadline:
                raise TimeoutError("killed processes are still there")
            time.sleep(0.01)  # between two looks at what the kernel is doing
        self._server.close()

    def freeze(self) -> None:
        """Stops the processes from running: connections stay open, new ones are accepted by the kernel alone."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> list[int]:
        """Sends it to every process of the server, the postmaster first: it would start new ones. Returns their ids."""
        postmaster = int((self._folder / "postmaster.pid").read_text().split()[0])
        backends = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        pids = [postmaster, *map(int, backends)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # it may not run
            self.thaw()
        self.stop()
