from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backend import Backend
from tests.command import refusal, run
from tests.gateway import Gateway, until
from tools.embedded import free_port

MODULE = "tools.ratelimit_check"
BASIC, OTHER, THIRD = "sk_test_basic", "sk_test_other", "sk_test_third"


@pytest.fixture
def gateway(tmp_path: Path, redis_url: str) -> Iterator[Gateway]:
    """Two basic organizations, 100 requests a minute and 50 of burst each, in front of a backend."""
    keys = f"{BASIC}:org_1:basic,{OTHER}:org_2:basic,{THIRD}:org_3:enterprise"
    with Backend() as backend:
        environment = {"BACKEND_URLS": f"demo={backend.url}", "REDIS_URL": redis_url, "VALID_API_KEYS": keys}
        with Gateway(tmp_path / "gateway", environment) as gateway:
            until(lambda: not gateway.get("/x", key=THIRD).all("X-RateLimit-Mode"), "Redis to decide")
            yield gateway


def test_burst_into_the_limit_agrees(gateway: Gateway) -> None:
    """Without --requests it goes on until it is refused; the table tells all figures, and the status is 0."""
    done = run(MODULE, "--url", f"http://127.0.0.1:{gateway.port}/x", "--key", BASIC)
    assert done.returncode == 0, done
    assert "admitted\t" in done.stdout
    assert "limit per minute / per day\t100 / 10000" in done.stdout
    assert "decided by\tredis" in done.stdout
    assert "agrees with what was announced" in done.stdout
    assert BASIC not in done.stdout + done.stderr


def test_bounded_burst_as_json(gateway: Gateway) -> None:
    """--requests bounds the burst exactly, and --json prints one object for a program."""
    done = run(MODULE, "--url", f"http://127.0.0.1:{gateway.port}/x", "--key", OTHER, "--requests", "20", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0, done
    assert (told["admitted"], told["refused"], told["other"], told["agrees"]) == (20, 0, {}, True)
    assert (told["limit_minute"], told["limit_day"], told["modes"]) == (100, 10_000, ["redis"])


def test_refused_key_is_one_line(gateway: Gateway) -> None:
    """A key that the gateway does not know ends the command with its answer, after a single request."""
    line = refusal(run(MODULE, "--url", f"http://127.0.0.1:{gateway.port}/", "--key", "sk_test_nobody"))
    assert line == "Error: the gateway answered 403 without limits: invalid API key"


def test_gateway_that_is_not_there_is_one_line() -> None:
    """An address where nothing listens ends the command with status 1 and one line."""
    url = f"http://127.0.0.1:{free_port()}/"
    assert refusal(run(MODULE, "--url", url, "--key", BASIC)).startswith(f"Error: {url} cannot be reached")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "localhost:8080", "--key", "k"),
        ("--url", "http://[::1", "--key", "k"),
        ("--url", "http://localhost/", "--key", "k\nx"),
        ("--url", "http://localhost/", "--key", "k", "--requests", "20001"),
        ("--url", "http://localhost/", "--key", "k", "--concurrency", "0"),
        ("--url", "http://localhost/"),
    ],
)
def test_bad_usage(arguments: tuple[str, ...]) -> None:
    """What cannot be meant is refused with status 2 before anything is sent."""
    refusal(run(MODULE, *arguments), status=2)
