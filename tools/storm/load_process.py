"""The load as its caller sees it: a process that is given a LoadPlan and answers with Samples when it is ended."""

from __future__ import annotations

import subprocess
import sys
from typing import Self

import click
import orjson

from tools.servers import ROOT
from tools.storm.caller import ANSWER_SECONDS
from tools.storm.plan import LoadPlan, Sample


class LoadProcess:
    """From entering until `end`; killed when the context is left before."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan

    def __enter__(self) -> Self:
        """Returns once requests are sent."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.storm.load"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us, who then end it
        )
        if self._process.stdin is not None:
            self._process.stdin.write(self._plan.as_json() + b"\n")
            self._process.stdin.flush()
        if self._process.stdout is not None:
            self._process.stdout.readline()  # it has begun
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def end(self) -> list[Sample]:
        """Raises a ClickException when the process does not tell."""
        told, _ = self._process.communicate(timeout=ANSWER_SECONDS + 10)
        if not told:
            raise click.ClickException("the load process ended without a word")
        return [Sample(*fields) for fields in orjson.loads(told)]
