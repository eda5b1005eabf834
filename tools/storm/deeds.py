"""What is done to processes under load. A deed looks itself at what it did: its answer is what was wrong."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx

from tools.storm.stack import SHUTDOWN_SECONDS, STATIC_KEY, WORKERS, Stack

REPLACE_SECONDS: Final = 8.0
HANG_SECONDS: Final = 20.0
"""The arbiter gives a silent worker 10 s; it looks once a second, and the next one has to start."""
MARGIN_SECONDS: Final = 3.0
CALM_SECONDS: Final = 15.0

Deed = Callable[[Stack], list[str]]


def restart_one_by_one(stack: Stack) -> list[str]:
    """SIGTERM, wait for the end, start again, wait until it is ready; then the next one."""
    wrong = []
    for gateway in stack.gateways:
        if status := gateway.end():
            wrong.append(f"gateway {gateway.name} ended with status {status}")
        gateway.start()
        if not gateway.waits_for(gateway.is_healthy, CALM_SECONDS):
            wrong.append(f"gateway {gateway.name} did not get healthy")
    return wrong


def kill_a_worker(stack: Stack) -> list[str]:
    return _replaced(stack, signal.SIGKILL, REPLACE_SECONDS)


def hang_a_worker(stack: Stack) -> list[str]:
    return _replaced(stack, signal.SIGSTOP, HANG_SECONDS)


def _replaced(stack: Stack, number: signal.Signals, seconds: float) -> list[str]:
    gateway = stack.gateways[0]
    victim = gateway.worker_pids[0]
    os.kill(victim, number)

    def is_replaced() -> bool:
        pids = gateway.worker_pids
        return victim not in pids and len(pids) == WORKERS

    is_kept = gateway.waits_for(is_replaced, seconds)
    return [] if is_kept else [f"the worker was not replaced within {seconds:g} s"]


@dataclass
class _Stream:
    """What a client of the demo backend's stream got: whether it was whole, and after how many seconds it ended."""

    url: str
    count: int
    is_whole: bool = False
    seconds: float = 0.0

    def run(self) -> None:
        began = time.monotonic()
        text = ""
        try:
            with httpx.stream(
                "GET", self.url, headers={"Authorization": f"Bearer {STATIC_KEY}"}, timeout=30, trust_env=False
            ) as answer:
                for part in answer.iter_text():
                    text += part
            self.is_whole = f"line {self.count}\n" in text
        except httpx.HTTPError:
            pass
        self.seconds = time.monotonic() - began


def stop_during_streams(stack: Stack) -> list[str]:
    """SIGTERM with two streams open: one that ends within SHUTDOWN_TIMEOUT and one that does not."""
    gateway = stack.gateways[0]
    url = f"http://127.0.0.1:{gateway.port}/demo/stream?seconds=0.1&count="
    short, long = _Stream(f"{url}20", 20), _Stream(f"{url}200", 200)
    threads = [threading.Thread(target=stream.run, daemon=True) for stream in (short, long)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)  # both are under way
    began = time.monotonic()
    status = gateway.end()
    seconds = time.monotonic() - began
    for thread in threads:
        thread.join(CALM_SECONDS)
    gateway.start()
    latest = SHUTDOWN_SECONDS + MARGIN_SECONDS
    looks = {
        "the short stream was cut": not short.is_whole,
        "the long stream was not cut": long.is_whole,
        f"the long stream was cut after {long.seconds - 1:.1f} s": long.seconds - 1 < SHUTDOWN_SECONDS - 0.5,
        f"the gateway ended after {seconds:.1f} s, not {latest:g}": seconds > latest,
        f"the gateway ended with status {status}": status != 0,
    }
    return [text for text, is_wrong in looks.items() if is_wrong]
