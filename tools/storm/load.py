"""The load, a process of its own: reads one LoadPlan from standard input and sends until its time or that input ends.

Standard output has a line when it begins, and at last a JSON array of Samples, one for each request that was due.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from typing import Final

import orjson
import uvloop

from tools.storm.caller import ANSWER_SECONDS, Caller
from tools.storm.plan import LoadPlan, Sample, Stream
from tools.ticker import Ticker

PENDING_MAX: Final = 5_000
"""Requests under way of one stream; what is due beyond is a sample that says so, and is not sent."""


class Sender:
    """One stream, from entering the loop until `close`."""

    def __init__(self, plan: LoadPlan, stream: Stream, samples: list[Sample]) -> None:
        self._stream = stream
        self._head = f"GET {plan.path} HTTP/1.1\r\nHost: gateway\r\n".encode()
        self._end = b"\r\n" if stream.is_kept else b"Connection: close\r\n\r\n"
        self._caller = Caller(plan.ports, is_kept=stream.is_kept)
        self._samples = samples
        self._offset = time.monotonic() - time.perf_counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticker = Ticker(1 / stream.rate, self._on_due)

    async def close(self) -> None:
        """No more requests; returns when those under way are answered, or too late."""
        self._ticker.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ANSWER_SECONDS)
        self._caller.close()

    def _on_due(self, when: float) -> None:
        due = when + self._offset
        if len(self._tasks) >= PENDING_MAX:
            self._samples.append(Sample(self._stream.name, due, 0.0, "not sent", "", "", 0))
            return
        task = asyncio.get_running_loop().create_task(self._send(due))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, due: float) -> None:
        who = self._stream.key or _stranger()
        answer = await self._caller.ask(b"%bAuthorization: Bearer %b\r\n%b" % (self._head, who.encode(), self._end))
        mode, reset = answer.field(b"x-ratelimit-mode"), answer.field(b"x-ratelimit-reset-minute")
        seconds = time.monotonic() - due
        self._samples.append(Sample(self._stream.name, due, seconds, answer.text, mode, reset, answer.retries))


def _stranger() -> str:
    """A key of nobody's, from an address of its own: guesses from one address would soon be refused unread (429)."""
    number = secrets.randbits(24)
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return f"sk_test_{secrets.token_hex(16)}\r\nX-Forwarded-For: {address}"


async def _main() -> None:
    plan = LoadPlan.parse(sys.stdin.buffer.readline())
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, over.set)
    loop.call_later(plan.seconds, over.set)
    samples: list[Sample] = []
    senders = [Sender(plan, stream, samples) for stream in plan.streams]
    print("begun", flush=True)
    await over.wait()
    await asyncio.gather(*(sender.close() for sender in senders))
    sys.stdout.buffer.write(orjson.dumps([list(sample) for sample in samples]))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main())
