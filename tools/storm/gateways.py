"""One gateway of the stack, started by the Procfile's command: it may be stopped, started again and hurt."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import click
import httpx
import orjson

from tools import procfile
from tools.servers import ROOT

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 15.0
LOOK_SECONDS: Final = 0.05


class GatewayProcess:
    """`start` and `end` at will; its output is collected in `folder`."""

    def __init__(self, name: str, folder: Path, port: int, environment: Mapping[str, str]) -> None:
        self.name = name
        self.port = port
        self.environment = dict(environment)
        self._output = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._output.touch()

    @property
    def pid(self) -> int:
        """Raises RuntimeError when it was not started."""
        if self._process is None:
            raise RuntimeError(f"gateway {self.name} does not run")
        return self._process.pid

    @property
    def worker_pids(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def start(self) -> None:
        """Returns once it answers. Raises a ClickException with its last line when it does not."""
        command = procfile.processes(ROOT / "Procfile")["web"].split()
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self._output.parent,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        if not self.waits_for(lambda: self._status("/health/live") == 200, START_SECONDS):
            lines = self._output.read_text(errors="replace").splitlines()
            raise click.ClickException(f"gateway {self.name} did not start: {lines[-1] if lines else 'it is silent'}")

    def waits_for(self, condition: Callable[[], object], seconds: float) -> bool:
        """Whether `condition()` became true in that time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_SECONDS)
        return True

    def is_healthy(self) -> bool:
        """Whether the worker that answers misses nothing."""
        with contextlib.suppress(httpx.HTTPError):
            return bool(httpx.get(self._url("/health"), timeout=2, trust_env=False).json()["status"] == "healthy")
        return False

    def _status(self, path: str) -> int | None:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(self._url(path), timeout=2, trust_env=False).status_code
        return None

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Its exit status. The whole group is killed when it does not end in STOP_SECONDS."""
        if self._process is None:
            return 0
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            return self._process.wait()
        finally:
            self._process = None

    def end(self) -> int:
        """SIGTERM, and its exit status."""
        if self._process is not None and self._process.poll() is None:
            self.terminate()
        return self.wait()

    @property
    def output_bytes(self) -> int:
        return self._output.stat().st_size

    def told_since(self, offset: int) -> Counter[str]:
        """What it said of itself after `offset` bytes of output, without the lines of requests."""
        with self._output.open("rb") as output:
            output.seek(offset)
            entries = [orjson.loads(line) for line in output if line.startswith(b"{")]
        return Counter(entry["message"] for entry in entries if "message" in entry)
