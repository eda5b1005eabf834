"""The document against the running app: whatever it allows is asked, and every answer is one that it tells of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.admin.conftest import TOKENS, Admin

SECONDS_MAX = 30
CONFIGURATION = """
[checks.positive_data_acceptance]
# 412 and 422 are left to state and meaning: an ETag of before, a cursor of another list, an expiry in the past.
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "412", "422", "429"]

[checks.use_after_free]
# Deleting an organization's own limits leaves the plan's.
enabled = false
"""


@pytest.mark.timeout(SECONDS_MAX + 60)
def test_the_document_is_true(admin: Admin, tmp_path: Path) -> None:
    """Examples, edges, random requests and sequences of them meet only documented statuses, headers and shapes."""
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    program = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    bounds = ["--max-time", str(SECONDS_MAX), "--max-examples", "10", "--request-timeout", "10"]
    manner = ["--generation-deterministic", "--warnings", "off", "--no-color"]
    target = f"http://127.0.0.1:{admin.port}/docs/openapi.json"
    token = ["-H", f"Authorization: Bearer {TOKENS['owner']}"]
    run = subprocess.run(
        [*program, "run", target, *token, *bounds, *manner], cwd=tmp_path, capture_output=True, text=True, timeout=90
    )
    assert run.returncode == 0, run.stdout[-8_000:] + run.stderr[-2_000:]
    assert "Tested: 23" in run.stdout, run.stdout[-2_000:]
    assert not admin.log(level="error")
