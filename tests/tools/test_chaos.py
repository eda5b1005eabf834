"""tools/chaos as a person runs it. What is promised is held by tests/system; here it is that it is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.command import ROOT, refusal, run
from tests.gateway import until
from tools.storm.scenarios import PROGRAMME

MODULE = "tools.chaos"


def processes_of(folder: Path) -> list[int]:
    """Everything that was started with its files or its working directory in there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            places = f"{(process / 'cmdline').read_text()} {(process / 'cwd').readlink()}"
        except OSError:
            continue
        if str(folder) in places:
            found.append(int(process.name))
    return found


def test_the_list() -> None:
    """--list names every scenario and starts nothing; a name that is not on it is bad usage."""
    listed = run(MODULE, "--list")
    assert [line.split("\t")[0] for line in listed.stdout.splitlines()[1:]] == [each.name for each in PROGRAMME]
    assert "redis-kiled" in refusal(run(MODULE, "--only", "redis-kiled"), status=2)


def test_one_scenario(tmp_path: Path) -> None:
    """--only carries out one scenario: what was done, answers, latencies and promises, and nothing runs on."""
    done = run(MODULE, "--only", "worker-killed", "--rate", "50", "--json", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done
    (row,) = json.loads(done.stdout)["rows"]
    assert row["name"] == "worker-killed"
    assert row["answers"]["known"]["200"] > 100
    assert row["latency_ms"]["before"]["p50"] > 0
    assert [promise["is_kept"] for promise in row["promises"]] == [True] * 4
    assert not processes_of(tmp_path)


def test_stopping_it(tmp_path: Path) -> None:
    """SIGTERM in the middle ends the load and everything that was started, and leaves no files."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", MODULE, "--only", "redis-killed"]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        until(lambda: len(processes_of(tmp_path)) > 14, "servers, backends and gateways to run", 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1
    assert not processes_of(tmp_path)
    assert not list(tmp_path.glob("gw-chaos-*"))
