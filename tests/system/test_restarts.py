"""Stopping and restarting under load: nobody who got a connection loses a request."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.backend import OK, Backend, Connection
from tests.gateway import STATIC_KEY, Gateway, until
from tests.system.traffic import KEYS, VALID_API_KEYS, Traffic

Start = Callable[..., Gateway]
GET = f"GET /x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {STATIC_KEY}\r\n\r\n".encode()
MANY = {"WEB_CONCURRENCY": "2", "VALID_API_KEYS": VALID_API_KEYS, "SHUTDOWN_DELAY": "1"}


def messages(gateway: Gateway) -> list[str]:
    return [line["message"] for line in gateway.log() if "message" in line]


def has_said(gateway: Gateway, beginning: str) -> bool:
    return any(each.startswith(beginning) for each in messages(gateway))


def is_draining(gateway: Gateway) -> bool:
    return gateway.get("/health/ready", key=None).status == 503


def is_served_by_two(gateway: Gateway) -> bool:
    return sum("serves" in each or "starting on" in each for each in messages(gateway)) >= 2


# --- SIGTERM ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to_group", [False, True], ids=["arbiter", "group"])
def test_no_request_is_lost_when_it_ends_under_load(to_group: bool, start: Start) -> None:
    """SIGTERM, to the arbiter or to all processes as platforms send it, among new, busy and pausing connections: every
    request that was sent is answered, and logged exactly once."""
    gateway = start(**MANY)
    with Traffic(gateway) as traffic:
        (os.killpg if to_group else os.kill)(gateway.process.pid, signal.SIGTERM)
        assert gateway.process.wait(20) == 0
    assert traffic.lost == []
    wanted = sorted(traffic.answered)

    def logged() -> list[str]:
        return sorted(line["request_id"] for line in gateway.log(path="/x", status=200))

    assert until(lambda: logged() if len(logged()) >= len(wanted) else None, "every line") == wanted


def test_everybody_is_told_before_anything_closes(start: Start) -> None:
    """In SHUTDOWN_DELAY after SIGTERM readiness is 503 on a new connection, and an idle and a new connection are served
    with `Connection: close`; afterwards new ones are refused."""
    gateway = start(SHUTDOWN_DELAY="2")
    with gateway.client() as idle:
        assert idle.send(GET).reply().all("Connection") == []
        gateway.terminate()
        until(lambda: is_draining(gateway), "readiness to tell")
        with gateway.client() as fresh:
            for client in (idle, fresh):
                reply = client.send(GET).reply()
                assert (reply.status, reply["Connection"]) == (200, "close")
                assert client.is_closed()
    assert gateway.process.wait(10) == 0
    with pytest.raises(ConnectionRefusedError):
        gateway.client()


def test_who_could_not_be_told_in_time_is_told_later(start: Start, backend: Backend) -> None:
    """An answer that began before SIGTERM could not say that it is the last: the connection carries one more."""

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(OK[:-1])
        until(lambda: is_draining(gateway), "the drain")
        connection.send(OK[-1:])
        connection.read()
        connection.send(OK)

    backend.script = script
    gateway = start(SHUTDOWN_DELAY="1")
    with gateway.client() as client:
        client.send(GET)
        assert b"Connection: close" not in (client._until(b"\r\n\r\n") or b"Connection: close")
        gateway.terminate()
        assert client._exactly(2) == (b"ok", True)
        reply = client.send(GET).reply()
        assert (reply.body, reply["Connection"]) == (b"ok", "close")
    assert gateway.process.wait(10) == 0


def test_a_connection_that_was_just_made_is_served(start: Start) -> None:
    """Connections that are made up to the last moment and ask a little later get their answers."""
    gateway = start(**MANY | {"SHUTDOWN_DELAY": "2"})
    get = GET.replace(STATIC_KEY.encode(), KEYS[0].encode())  # by its plan: thousands go through a quick machine
    gateway.terminate()
    made = []
    with contextlib.ExitStack() as stack:
        for _ in range(10_000):  # ten seconds at least
            try:
                made.append(stack.enter_context(gateway.client()))
            except ConnectionRefusedError:
                break
            time.sleep(0.001)
            if len(made) > 20:  # each is idle for a moment before it asks
                with made.pop(0) as client:
                    assert client.send(get).reply().status == 200
        else:
            raise AssertionError("never refused")
        for client in made:
            assert client.send(get).reply()["Connection"] == "close"
    assert gateway.process.wait(10) == 0


@pytest.mark.parametrize("first", [None, signal.SIGTERM])
def test_a_person_need_not_wait(first: signal.Signals | None, start: Start) -> None:
    """Ctrl-C skips SHUTDOWN_DELAY, also when SIGTERM came first."""
    gateway = start(SHUTDOWN_DELAY="60", SHUTDOWN_TIMEOUT="120")
    if first is not None:
        gateway.process.send_signal(first)
        until(lambda: is_draining(gateway), "the drain to begin")
    began = time.monotonic()
    os.killpg(gateway.process.pid, signal.SIGINT)
    assert gateway.process.wait(15) == 0
    assert time.monotonic() - began < 15


def test_the_delay_is_part_of_the_timeout(start: Start, backend: Backend) -> None:
    """SHUTDOWN_TIMEOUT bounds it all: a longer SHUTDOWN_DELAY takes half of it, a stream is cut at its end."""

    def script(connection: Connection) -> None:
        connection.read()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        connection.more()

    backend.script = script
    gateway = start(SHUTDOWN_TIMEOUT="2", SHUTDOWN_DELAY="60")
    with gateway.client() as client:
        client.send(GET)
        assert client._until(b"hello") is not None
        began = time.monotonic()
        gateway.terminate()
        assert gateway.process.wait(15) == 0
        assert 2 <= time.monotonic() - began < 2 + 5
    assert any("did not end within 2 s" in each for each in messages(gateway))


# --- one after the other ---------------------------------------------------------------------------------------------


def test_two_gateways_are_restarted_one_after_the_other(start: Start) -> None:
    """Behind a router that goes on to the next when one refuses: no request is lost, none is turned away."""
    one = MANY | {"WEB_CONCURRENCY": "1"}
    gateways = start(**one), start(**one)
    with Traffic(*gateways) as traffic:
        for gateway in gateways:
            gateway.terminate()
            assert gateway.process.wait(20) == 0
            traffic.go_on()
            gateway.start()
            traffic.go_on()
    assert (traffic.lost, traffic.turned_away) == ([], 0)


def test_sighup_replaces_the_workers(start: Start) -> None:
    """Under load: no request is lost or turned away, every worker is a new one, with the settings read anew."""
    gateway = start(**MANY)
    until(lambda: is_served_by_two(gateway), "both workers to serve")
    before = set(gateway.worker_pids)
    (gateway.folder / ".env").write_text("RATE_LIMIT_IETF_HEADERS=off\n")
    assert gateway.get("/x").all("RateLimit")
    with Traffic(gateway) as traffic:
        os.killpg(gateway.process.pid, signal.SIGHUP)  # what the workers get of it leaves them alone
        until(lambda: len(gateway.worker_pids) == 2 and not before & set(gateway.worker_pids), "two new workers")
        traffic.go_on()
    assert (traffic.lost, traffic.turned_away) == ([], 0)
    assert not gateway.get("/x").all("RateLimit")
    assert not gateway.log(level="error")
    assert gateway.stop() == 0


def test_sighup_with_a_mistake_changes_nothing(start: Start) -> None:
    """What would keep it from starting keeps it from reloading, and so does another port: the log says why."""
    gateway = start()
    gateway.stop()
    port = f"GATEWAY_PORT={gateway.environment.pop('GATEWAY_PORT')}\n"
    (gateway.folder / ".env").write_text(port)
    gateway.start()
    before = gateway.worker_pids
    for number, (text, told) in enumerate(
        [(f"{port}LOG_LEVEL=loud\n", "LOG_LEVEL: 'loud' "), ("PORT=1\n", "PORT: cannot ")]
    ):
        (gateway.folder / ".env").write_text(text)
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: messages(gateway).count("SIGHUP: nothing was changed") > number, "the refusal")  # noqa: B023
        assert has_said(gateway, f"Failed to load configuration: {told}")
    assert gateway.get("/x").status == 200
    assert gateway.worker_pids == before


def test_workers_that_cannot_start_replace_nobody(start: Start) -> None:
    """SIGHUP when new workers break: the old one serves on, until new ones work."""
    gateway = start(module="tests.system.fragile")
    [old] = gateway.worker_pids
    broken = gateway.folder / "broken"
    broken.touch()
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: messages(gateway).count("worker ended by an error") >= 2, "two attempts")
    assert old in gateway.worker_pids
    assert gateway.get("/x").status == 200
    broken.unlink()
    until(lambda: old not in gateway.worker_pids, "the old one to go")
    assert gateway.get("/x").status == 200


def test_a_worker_that_ends_alone(start: Start, backend: Backend) -> None:
    """SIGTERM to one of two workers, with a request that goes on: another takes its place before it has ended."""
    gateway = start(**MANY | {"SHUTDOWN_TIMEOUT": "30"})
    until(lambda: is_served_by_two(gateway), "both workers to serve")
    before = set(gateway.worker_pids)
    with Traffic(gateway) as traffic:
        os.kill(min(before), signal.SIGTERM)
        until(lambda: set(gateway.worker_pids) - before, "a new worker")
        until(lambda: min(before) not in gateway.worker_pids, "the old one to end")
        traffic.go_on()
    assert (traffic.lost, traffic.turned_away) == ([], 0)
    assert len(gateway.worker_pids) == 2


def test_signals_for_what_cannot_be_done(start: Start) -> None:
    """SIGUSR2, SIGTTIN and SIGTTOU are refused in the log, and change nothing."""
    gateway = start()
    before = gateway.worker_pids
    for name in ("SIGUSR2", "SIGTTIN", "SIGTTOU"):
        gateway.process.send_signal(signal.Signals[name])
        until(partial(has_said, gateway, f"{name} is ignored"), "the refusal")
    assert gateway.get("/x").status == 200
    assert gateway.worker_pids == before
