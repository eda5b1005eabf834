"""Request ids."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

from app.core.process.request_id import BLOCK, new_request_id

ROOT = Path(__file__).resolve().parents[2]


def test_ids_are_version_four() -> None:
    """Every id is a version 4 UUID in canonical text, and none comes twice."""
    ids = [new_request_id() for _ in range(BLOCK * 20)]
    assert len(set(ids)) == len(ids)
    for text in ids:
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)


FORK = """
import os
from app.core.process.request_id import BLOCK, new_request_id
print(new_request_id(), flush=True)
child = os.fork()
ids = [new_request_id() for _ in range(BLOCK * 2)]
if child:
    os.waitpid(child, 0)  # one prints after the other: on one pipe their lines would mix
print(" ".join(ids))
"""


def test_forked_processes_do_not_share_ids() -> None:
    """A worker that was forked from a process with ids in store makes its own."""
    done = subprocess.run([sys.executable, "-c", FORK], cwd=ROOT, capture_output=True, timeout=60, check=True)
    ids = done.stdout.split()
    assert len(ids) == len(set(ids)) == 1 + 4 * BLOCK
