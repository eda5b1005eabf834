"""The writer of log lines: never in the way, whole lines, bounded."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import pytest

from app.core.process.output import Output, _chunks

DEADLINE_SECONDS = 10.0


ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Pipe:
    """Both ends as files, since closing a file twice is harmless and closing a number twice may hit another's."""

    reading: FileIO
    writing: FileIO


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reading, writing = os.pipe()
    with FileIO(reading, "r") as read_end, FileIO(writing, "w") as write_end:
        yield Pipe(read_end, write_end)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_lines_arrive_in_order(pipe: Pipe) -> None:
    """Every line arrives, once, in the order it was written, and closing waits for the last."""
    lines = [b"line %d\n" % number for number in range(1000)]
    with Output(pipe.writing.fileno()) as output:
        for line in lines:
            output.write(line)
    assert pipe.reading.read(65_536) == b"".join(lines)


def test_writing_goes_on_after_close(pipe: Pipe) -> None:
    """A line after a close starts the writer again."""
    output = Output(pipe.writing.fileno())
    for text in (b"one\n", b"two\n"):
        output.write(text)
        output.close()
    assert pipe.reading.read(100) == b"one\ntwo\n"


def test_slow_reader_costs_nothing_but_lines(pipe: Pipe) -> None:
    """While nobody reads, writing stays quick, memory bounded, and the lines lost are counted and told afterwards."""
    told: list[int] = []
    output = Output(pipe.writing.fileno(), buffer_bytes_max=200_000)
    output.on_dropped = told.append
    line = b"x" * 99 + b"\n"
    begun = time.monotonic()
    for _ in range(20_000):
        output.write(line)
    assert time.monotonic() - begun < 2  # 2 MB into a pipe of 64 KiB that nobody reads would never end
    assert output.dropped > 0
    received = bytearray()
    reader = threading.Thread(target=lambda: received.extend(pipe.reading.readall()))
    reader.start()
    until(lambda: bool(told))
    output.write(b"the reader is back\n")
    output.close()
    pipe.writing.close()
    reader.join(DEADLINE_SECONDS)
    assert sum(told) + bytes(received).count(line) == 20_000
    assert bytes(received).endswith(b"the reader is back\n")


def test_close_is_bounded(pipe: Pipe) -> None:
    """A reader that reads nothing cannot hold up the end of the process."""
    output = Output(pipe.writing.fileno())
    for _ in range(2_000):
        output.write(b"y" * 100 + b"\n")
    thread = output._thread
    begun = time.monotonic()
    output.close(seconds=0.2)
    assert time.monotonic() - begun < 2
    assert thread is not None
    pipe.reading.close()  # or the thread would wait on, with a descriptor that the next test may be given
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()


def test_reader_gone(pipe: Pipe) -> None:
    """A closed pipe loses lines, counted; the process lives on."""
    pipe.reading.close()
    output = Output(pipe.writing.fileno())
    output.write(b"into the void\n")
    output.close()
    assert output.dropped == 1


def test_disk_full() -> None:
    """A full disk loses lines, counted; the process lives on."""
    full = os.open("/dev/full", os.O_WRONLY)
    output = Output(full)
    output.write(b"no room\n")
    output.close()
    os.close(full)
    assert output.dropped == 1


def test_disk_full_for_a_while(tmp_path: Path) -> None:
    """The failure is told once however many lines it costs; their number is told when a line was written again; and a
    line that was cut is ended."""
    failures: list[str] = []
    dropped: list[int] = []
    log = tmp_path / "log"
    full = os.open("/dev/full", os.O_WRONLY)
    with log.open("wb") as file, Output(file.fileno()) as output:
        output.on_failing, output.on_dropped = failures.append, dropped.append
        room = os.dup(file.fileno())
        os.dup2(full, file.fileno())
        for count in range(1, 4):
            output.write(b"lost\n")
            until(lambda count=count: output.dropped == count)  # type: ignore[misc]
        assert (failures, dropped) == (["No space left on device"], [])
        os.dup2(room, file.fileno())
        output._is_torn = True  # as if the disk had taken some bytes
        output.write(b"kept\n")
        until(lambda: dropped == [3])
        os.close(room)
    os.close(full)
    assert (output.dropped, log.read_bytes()) == (0, b"\nkept\n")


def test_non_blocking_descriptor(pipe: Pipe) -> None:
    """A pipe that somebody made non-blocking gets every line all the same."""
    os.set_blocking(pipe.writing.fileno(), False)
    lines = [b"%06d" % number + b"z" * 93 + b"\n" for number in range(5_000)]
    output = Output(pipe.writing.fileno())
    received = bytearray()
    reader = threading.Thread(target=lambda: received.extend(pipe.reading.readall()))
    for line in lines:
        output.write(line)
    reader.start()
    output.close(DEADLINE_SECONDS)
    pipe.writing.close()
    reader.join(DEADLINE_SECONDS)
    assert bytes(received) == b"".join(lines)


FORKS = """
import os
from app.core.process.output import Output
output = Output()
output.write(b"parent\\n")
children = []
for name in (b"a", b"b", b"c"):
    child = os.fork()
    if not child:
        for number in range(2_000):
            output.write(name + b"%04d" % number + name * 300 + b"\\n")
        output.close(10)
        os._exit(0)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
"""


def test_processes_share_a_pipe_without_mixing_lines() -> None:
    """Lines of several forked processes in one pipe stay whole, and each arrives exactly once."""
    done = subprocess.run([sys.executable, "-c", FORKS], cwd=ROOT, capture_output=True, timeout=60, check=True)
    names = (b"a", b"b", b"c")
    expected = [b"parent"] + [name + b"%04d" % number + name * 300 for name in names for number in range(2_000)]
    assert sorted(done.stdout.splitlines()) == sorted(expected)


def test_chunks() -> None:
    """A chunk is whole lines and no more bytes than allowed; only a longer line stands alone."""
    assert _chunks([b"aaaa\n", b"bbbb\n", b"cc\n"], 10) == [(b"aaaa\nbbbb\n", 2), (b"cc\n", 1)]
    assert _chunks([b"a\n", b"x" * 20, b"b\n"], 10) == [(b"a\n", 1), (b"x" * 20, 1), (b"b\n", 1)]
    assert _chunks([], 10) == []


def test_regular_file(tmp_path: Path) -> None:
    """A file as standard output gets every line."""
    with (tmp_path / "log").open("wb") as file, Output(file.fileno()) as output:
        for _ in range(3_000):
            output.write(b"f" * 99 + b"\n")
    assert (tmp_path / "log").stat().st_size == 300_000
