"""`tools/dev` as a newcomer runs it, on a copy of the project (its data lies beside the code)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tools.embedded import ReservedPort

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 60.0
ENOUGH = ("app", "admin", "db", "tools", "Procfile")
FORGOTTEN = (
    *("DATABASE_URL", "REDIS_URL", "REDIS_ADDR", "BACKEND_URLS", "VALID_API_KEYS"),
    *("GATEWAY_PORT", "ADMIN_PORT", "ADMIN_TOKENS"),
)


@pytest.fixture
def clone(short_folder: Path) -> Iterator[Path]:
    """A copy of what runs, without data."""
    folder = short_folder / "clone"
    folder.mkdir()
    for name in ENOUGH:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class Dev:
    """One run of it; a context manager that leaves nothing behind."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in FORGOTTEN}
        self._reserved = ReservedPort(), ReservedPort()
        ports = {name: str(port.number) for name, port in zip(("PORT", "ADMIN_PORT"), self._reserved, strict=True)}
        environment |= {"WEB_CONCURRENCY": "1", **ports, **variables}
        self.told_file = folder / "told"
        with self.told_file.open("wb") as told:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tools.dev", *arguments],
                cwd=folder,
                env=environment,
                stdout=told,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def until(self, text: str) -> str:
        """What was printed, once `text` is in it."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while text not in (told := self.told_file.read_text()):
            assert self.process.poll() is None, told
            assert time.monotonic() < deadline, told
            time.sleep(0.05)
        return told

    def invited(self) -> str:
        """The first line to paste."""
        (line,) = re.findall(r"^  (curl -i .*)$", self.until("Ctrl-C stops everything"), re.MULTILINE)
        return str(line)

    def admin_line(self) -> str:
        """The line to paste for the admin API."""
        (line,) = re.findall(r"^  (curl .*/v1/organizations)$", self.until("Ctrl-C stops everything"), re.MULTILINE)
        return str(line)

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_SECONDS)

    def __enter__(self) -> Dev:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop(signal.SIGTERM)


def running_in(folder: Path) -> list[str]:
    """Command lines of the processes that work in `folder` or name it."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        command = " ".join(process.info["cmdline"] or ())
        if str(folder) in command or (process.info["cwd"] or "").startswith(str(folder)):
            found.append(command)
    return found


def pasted(line: str) -> str:
    return subprocess.run(line, shell=True, capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S602


def test_from_nothing_to_a_request_and_back(clone: Path) -> None:
    """The printed line works when pasted, the request is logged, Ctrl-C ends with status 0 and nothing left running,
    and the next run has the data of the first."""
    with Dev(clone) as dev:
        answer = pasted(dev.invited())
        assert answer.startswith("HTTP/1.1 200 OK")
        assert '"tier":"premium"' in answer
        dev.until('"path":"/demo/hello"')
        assert '"name":"TechStart Inc"' in pasted(dev.admin_line())
        key = re.findall(r"sk_test_[0-9a-f]{32}", dev.invited())[0]
        assert dev.stop() == 0
    assert running_in(clone) == []
    with Dev(clone) as again:
        second = again.invited()
        assert key not in second
        first_key = re.sub(r"sk_test_[0-9a-f]{32}", key, second)
        assert pasted(first_key).startswith("HTTP/1.1 200 OK")
        assert again.stop(signal.SIGTERM) == 0
    assert running_in(clone) == []


def test_reset_forgets(clone: Path) -> None:
    """After --reset a key of an earlier run is unknown, and a BACKEND_URLS of one's own is used."""
    with Dev(clone) as dev:
        key = re.findall(r"sk_test_[0-9a-f]{32}", dev.invited())[0]
    with Dev(clone, "--reset", BACKEND_URLS="own=http://127.0.0.1:9") as dev:
        line = dev.invited()
        assert "/own/hello" in line
        assert pasted(line).startswith("HTTP/1.1 502 ")
        assert pasted(re.sub(r"sk_test_[0-9a-f]{32}", key, line)).startswith("HTTP/1.1 403 ")


def test_mistakes_are_one_line(clone: Path) -> None:
    """A taken port, a second run in the same folder and a wrong variable end at once, with one line and status 1."""
    reserved = ReservedPort()
    with Dev(clone) as dev:
        port = dev.invited().rpartition(":")[2].partition("/")[0]
        for variables, expected in (
            ({"PORT": port}, f"Error: port {port} cannot be used"),
            ({"PORT": str(reserved.number)}, "Error: tools/dev runs already in this folder"),
            ({"PORT": "eighty"}, "Failed to load configuration: PORT: 'eighty' will not do"),
        ):
            done = subprocess.run(
                [sys.executable, "-m", "tools.dev"],
                cwd=clone,
                env=os.environ | variables,
                capture_output=True,
                text=True,
                timeout=DEADLINE_SECONDS,
                check=False,
            )
            assert done.returncode == 1
            assert done.stderr.startswith(expected)
            assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_starting(clone: Path, number: int) -> None:
    """A signal before everything is up undoes what was started."""
    with Dev(clone) as dev:
        dev.until("starting Redis")
        assert dev.stop(number) == 0
    assert running_in(clone) == []
