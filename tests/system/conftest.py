"""A gateway of its own for each test: here processes are started, hurt and stopped."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.backend import Backend
from tests.gateway import Gateway

Start = Callable[..., Gateway]


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as running:
        yield running


@pytest.fixture
def start(tmp_path: Path, backend: Backend) -> Iterator[Start]:
    """`start(NAME="value", …)` runs a gateway in front of the test's backend. What is left is killed at the end.

    `stdout`, `stderr`: descriptors that its output goes to instead of being collected.
    """
    started: list[Gateway] = []
    numbers = itertools.count(1)

    def run(
        *, module: str = "app", wait: bool = True, stdout: int = PIPE, stderr: int = PIPE, **environment: str
    ) -> Gateway:
        variables = {"BACKEND_URLS": f"api={backend.url}", "SHUTDOWN_TIMEOUT": "5", **environment}
        gateway = Gateway(tmp_path / f"gateway-{next(numbers)}", variables, module=module)
        started.append(gateway)
        return gateway.start(wait=wait, stdout=stdout, stderr=stderr)

    yield run
    for gateway in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(gateway.process.pid, signal.SIGKILL)
        gateway.process.wait(10)
