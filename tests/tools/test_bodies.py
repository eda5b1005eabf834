from __future__ import annotations

import json

import pytest

from tests.backend import Backend, Connection, answer
from tests.command import refusal, run
from tools import transfer
from tools.embedded import free_port
from tools.peers import NGINX
from tools.plan import Endpoint
from tools.transfer import TransferFailed

MODULE = "tools.bodies"


def endpoint(backend: Backend) -> Endpoint:
    return Endpoint("gateway", f"{backend.url}/bytes/1000000", "sk_test_1")


def test_bodies_pass_the_gateway() -> None:
    """A body goes down and one up through a gateway, then through nginx if installed; rates and memory are told."""
    done = run(MODULE, "--megabytes", "5", "--json")
    assert done.returncode == 0, done
    told = json.loads(done.stdout)["bodies"]
    assert [each["name"] for each in told] == ["gateway", *(["nginx"] if NGINX.is_installed() else [])]
    assert all(each["size_bytes"] == 5_000_000 for each in told)
    assert all(each["down_mb_per_second"] > 1 and each["up_mb_per_second"] > 1 for each in told)
    assert all(0 < each["memory_before_mib"] <= each["memory_max_mib"] for each in told)


def test_every_byte_is_read_and_sent() -> None:
    """Down reads exactly the body, up sends exactly the body with its length, both with the key."""
    heard: list[int] = []
    with Backend(answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000))) as backend:
        assert transfer.down(endpoint(backend), 1_000_000, heard.append) > 0
        assert transfer.up(endpoint(backend), 1_000_000, heard.append) > 0
        got, posted = backend.requests
    assert got.startswith(b"GET /bytes/1000000 HTTP/1.1\r\n")
    assert b"Authorization: Bearer sk_test_1\r\n" in got
    assert posted.partition(b"\r\n\r\n")[2] == bytes(1_000_000)
    assert heard


def cut(connection: Connection) -> None:
    connection.read()
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(5))


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (answer(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n"), "got HTTP/1.1 413 Payload Too Large"),
        (cut, "the answer ended 999995 bytes early"),
        (lambda connection: None, "gateway: "),
    ],
)
def test_body_that_does_not_pass(script: object, told: str) -> None:
    """A refusal, an answer cut short, or a connection that ends says so, and is no rate."""
    with Backend(script) as backend, pytest.raises(TransferFailed, match=told):  # type: ignore[arg-type]
        transfer.down(endpoint(backend), 1_000_000, lambda count: None)


def test_nobody_listens() -> None:
    """Where nothing listens, a transfer fails as a value of ours."""
    with pytest.raises(TransferFailed, match="gateway: "):
        transfer.up(Endpoint("gateway", f"http://127.0.0.1:{free_port()}/x", None), 10, lambda count: None)


@pytest.mark.parametrize("megabytes", ["0", "10001", "1.5"])
def test_bad_usage(megabytes: str) -> None:
    """What cannot be meant is refused with status 2 before anything is started."""
    refusal(run(MODULE, "--megabytes", megabytes), status=2)
