"""The log's way out: lines written by a thread, so that a slow reader never stops the event loop. Wired."""

from __future__ import annotations

import atexit
import os
import select
import stat
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Final, Self

from app.core.process.access import LINE_BYTES_MAX
from app.core.process.pending import Pending

FILE_BYTES_MAX: Final = 65_536
"""A write to a regular file is whole in any case (one offset, shared and locked); fewer and larger ones are cheaper."""
BUFFER_BYTES_MAX: Final = 8 * 1024 * 1024
PAUSE_SECONDS: Final = 0.03
"""Between two batches: system calls are dear, and nobody reads a log faster than this."""


class Output:
    """Lines on their way to a file descriptor; a context manager. The thread starts with the first line of a process.

    `write` never blocks: beyond `buffer_bytes_max` a line is dropped and counted, and `on_dropped` is called from the
    thread with the count once lines are taken again. A descriptor that is gone or full loses lines (counted, too),
    never the process; `on_failing` is called with the reason when that begins. Forks: the parent writes out what it has
    before, the child starts empty.
    """

    def __init__(self, descriptor: int = 1, *, buffer_bytes_max: int = BUFFER_BYTES_MAX) -> None:
        self.on_dropped: Callable[[int], None] | None = None
        self.on_failing: Callable[[str], None] | None = None
        self._descriptor = descriptor
        self._pending = Pending(buffer_bytes_max, self._rouse)
        self.write = self._pending.put
        """Takes one whole line, its line end included, of at most LINE_BYTES_MAX bytes."""
        self._start_empty()
        _outputs.add(self)

    def _start_empty(self) -> None:
        self._pending.start_empty()
        self._lock = threading.Lock()
        self._is_failing = self._is_torn = False
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def dropped(self) -> int:
        """Lines that were lost and not reported yet."""
        return self._pending.dropped

    def _rouse(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, args=(self._wake, self._closing), daemon=True)
                self._thread.start()
                atexit.register(self.close)
            self._wake.set()

    def close(self, seconds: float = 2.0) -> None:
        """Writes what is there, within `seconds`; a reader slower than that misses the rest. Writing on is fine."""
        next_wake, next_closing = threading.Event(), threading.Event()
        with self._lock:
            thread, wake, closing = self._thread, self._wake, self._closing
            self._thread, self._wake, self._closing = None, next_wake, next_closing
        self._pending.sleep()
        atexit.unregister(self.close)
        closing.set()
        wake.set()
        if thread is not None:
            thread.join(seconds)

    def _run(self, wake: threading.Event, closing: threading.Event) -> None:
        """Until `closing`. The events are this thread's own: after a close the next line starts another thread."""
        while not closing.is_set():
            wake.wait()
            closing.wait(PAUSE_SECONDS)
            wake.clear()
            self._write_batch(self._pending.take())
            self._report()
        self._write_batch(self._pending.take())

    def _write_batch(self, lines: Sequence[bytes]) -> None:
        """The lines still count as pending until they are written, so the bound holds for the whole way."""
        for chunk, count in _chunks(lines, self._chunk_bytes_max()):
            try:
                self._write_all(b"\n" + chunk if self._is_torn else chunk)
                self._is_failing = False
            except OSError as error:  # EPIPE, ENOSPC, EBADF
                self._lose(count, error)
            self._pending.written(len(chunk))

    def _write_all(self, data: bytes) -> None:
        """Raises OSError. Waits for room where whoever shares the descriptor has made it non-blocking.

        A full disk can take the beginning of a line: it is ended before the next, so that it spoils none.
        """
        while data:
            try:
                written = os.write(self._descriptor, data)
            except BlockingIOError:
                select.select([], [self._descriptor], [], 1.0)
                continue
            self._is_torn = written < len(data)
            data = data[written:]

    def _lose(self, count: int, error: OSError) -> None:
        self._pending.lose(count)
        if not self._is_failing and self.on_failing is not None:
            self.on_failing(error.strerror or str(error))
        self._is_failing = True

    def _chunk_bytes_max(self) -> int:
        try:
            mode = os.fstat(self._descriptor).st_mode
        except OSError:
            return LINE_BYTES_MAX
        return FILE_BYTES_MAX if stat.S_ISREG(mode) else LINE_BYTES_MAX

    def _report(self) -> None:
        # While it fails the report would be lost as well, and its loss be reported.
        if self.on_dropped is not None and not self._is_failing and (dropped := self._pending.take_dropped()):
            self.on_dropped(dropped)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _chunks(lines: Sequence[bytes], bytes_max: int) -> list[tuple[bytes, int]]:
    """Whole lines joined into writes of at most `bytes_max` (a longer line alone), with the number of lines in each."""
    chunks: list[tuple[bytes, int]] = []
    start = size = 0
    for number, line in enumerate(lines):
        if size and size + len(line) > bytes_max:
            chunks.append((b"".join(lines[start:number]), number - start))
            start, size = number, 0
        size += len(line)
    if size:
        chunks.append((b"".join(lines[start:]), len(lines) - start))
    return chunks


_outputs: weakref.WeakSet[Output] = weakref.WeakSet()


def _before_fork() -> None:
    for output in _outputs:
        output.close()


def _after_fork_in_child() -> None:
    for output in _outputs:
        output._start_empty()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
