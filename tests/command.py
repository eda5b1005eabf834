"""Our commands run as a person runs them: a process, an environment, an exit status."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(module: str, *arguments: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
    """`python -m module arguments`, with these environment variables and none of the caller's that configure us.

    Runs in an empty folder, so that no `.env` of a developer's is read; its standard input is closed.
    """
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    environment.update({name: value for name, value in variables.items() if value is not None})
    command = [sys.executable, "-m", module, *arguments]
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=110
        )


def refusal(completed: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """The last line of standard error of a command that must have failed, without a traceback and printing nothing."""
    assert completed.returncode == status, completed
    assert completed.stdout == ""
    assert "Traceback" not in completed.stderr
    lines = completed.stderr.splitlines()
    assert status != 1 or len(lines) == 1, lines
    return lines[-1]
