"""The load generator as its caller sees it: a process that is given a Plan and answers with an Outcome."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Self

import click

from tools.load import TICK_SECONDS
from tools.plan import Outcome, Plan
from tools.servers import ROOT


class Generator:
    """A run under way, from entering until leaving. `wait` for its outcome; `stop` ends it early, in good order."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.load"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the caller, who then ends us
        )
        self._write(self._plan.as_json() + b"\n")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _write(self, data: bytes) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(data)
            self._process.stdin.flush()

    def stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._write(b"\n")

    def wait(self, on_tick: Callable[[float], None] = lambda seconds: None) -> Outcome:
        """Calls `on_tick` with the seconds that passed since the last call. Raises a ClickException if it ends dumb."""
        for line in self._process.stdout or ():
            if line != b".\n":
                return Outcome.parse(line)
            on_tick(TICK_SECONDS)
        raise click.ClickException("the load generator ended without an outcome")


def fire(plan: Plan, on_tick: Callable[[float], None] = lambda seconds: None) -> Outcome:
    """Carries out a plan, on the processors that the caller runs on."""
    with Generator(plan) as generator:
        return generator.wait(on_tick)


def read_samples(file: Path) -> tuple[array[float], array[float]]:
    """The starts (unix seconds) and latencies (seconds) that a run left in its plan's `samples`."""
    values = array("d")
    values.frombytes(file.read_bytes())
    half = len(values) // 2
    return values[:half], values[half:]
