"""The sample backend says truthfully what arrived."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tools.embedded import ReservedPort

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 20.0


@pytest.fixture(scope="module")
def backend() -> Iterator[httpx.Client]:
    """A client of a sample backend of this module's own."""
    reserved = ReservedPort()
    port = reserved.number
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.demo_backend", "--port", str(port)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout as told, httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        assert told.readline() == f"demo backend on http://127.0.0.1:{port}\n".encode()
        yield client
        process.terminate()
        assert process.wait(DEADLINE_SECONDS) == 0


def test_echo(backend: httpx.Client) -> None:
    """Method, target, headers, body and whom the gateway named come back as they arrived."""
    headers = {"X-Organization-ID": "org_1", "X-Plan-Tier": "basic", "X-Request-ID": "r1", "X-Own": "a"}
    body = bytes(range(256)) * 4_000
    found = backend.put("/any/where?x=1&y", content=body, headers=headers).json()
    assert (found["method"], found["target"]) == ("PUT", "/any/where?x=1&y")
    assert found["body"] == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    assert (found["organization"], found["tier"], found["request_id"]) == ("org_1", "basic", "r1")
    assert ["x-own", "a"] in found["headers"]


@pytest.mark.parametrize("place", ["/stream", "/demo/stream"])
def test_stream_comes_in_parts(backend: httpx.Client, place: str) -> None:
    """/stream sends its lines one at a time, alone or behind a service's name."""
    with backend.stream("GET", f"{place}?count=3&seconds=0.5") as response:
        arrived = [(line, time.monotonic()) for line in response.iter_lines()]
    assert [line for line, _ in arrived] == ["line 1", "line 2", "line 3"]
    assert arrived[2][1] - arrived[0][1] > 0.2


def test_events(backend: httpx.Client) -> None:
    """/events sends server-sent events."""
    response = backend.get("/events?count=2&seconds=0")
    assert response.headers["content-type"] == "text/event-stream"
    assert response.text == 'id: 1\ndata: {"number": 1}\n\nid: 2\ndata: {"number": 2}\n\n'


def test_bytes(backend: httpx.Client) -> None:
    """/bytes/N sends exactly N bytes with their Content-Length; HEAD sends the head alone."""
    response = backend.get("/bytes/100001")
    assert (len(response.content), response.headers["content-length"]) == (100_001, "100001")
    assert backend.head("/bytes/100001").headers["content-length"] == "100001"


def test_slow(backend: httpx.Client) -> None:
    """/slow waits as long as it was asked to."""
    begun = time.monotonic()
    assert backend.get("/slow?seconds=0.3").status_code == 200
    assert time.monotonic() - begun >= 0.3


@pytest.mark.parametrize(("path", "status"), [("/status/418", 418), ("/status/503", 503), ("/status/204", 204)])
def test_status(backend: httpx.Client, path: str, status: int) -> None:
    """/status/N answers with that status."""
    assert backend.get(path).status_code == status


@pytest.mark.parametrize(
    "path", ["/status/99", "/status/x", "/status/600", "/bytes/-1", "/slow?seconds=nan", "/stream?count=1e9"]
)
def test_refused_figures(backend: httpx.Client, path: str) -> None:
    """A figure out of range gets 400, and the backend lives on."""
    assert backend.get(path).status_code == 400
    assert backend.get("/").status_code == 200


def test_taken_port(backend: httpx.Client) -> None:
    """A port that is taken ends it with one line and status 1."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.demo_backend", "--port", str(backend.base_url.port)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: cannot listen on 127.0.0.1:")
    assert len(done.stderr.splitlines()) == 1
