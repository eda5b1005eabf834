"""Whose word is believed about where a request comes from (TRUSTED_PROXIES), as the backend and the log see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.backend import Backend
from tests.gateway import STATIC_KEY, Gateway

FORGED = (
    "X-Forwarded-For: 203.0.113.9, 198.51.100.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: public.example\r\n"
    "X-Request-ID: given-1\r\n"
)


@pytest.fixture(scope="module")
def start(shared_backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Gateway]]:
    """A gateway for each value of TRUSTED_PROXIES, started when it is first asked for."""
    started: dict[str, Gateway] = {}
    with ExitStack() as stack:

        def gateway(trusted: str) -> Gateway:
            if trusted not in started:
                folder: Path = tmp_path_factory.mktemp("gateway")
                environment = {"BACKEND_URLS": f"api={shared_backend.url}"}
                if trusted:
                    environment["TRUSTED_PROXIES"] = trusted
                started[trusted] = stack.enter_context(Gateway(folder, environment))
            return started[trusted]

        yield gateway


def ask(gateway: Gateway, fields: str) -> str:
    """The request's id in the answer."""
    head = f"GET /api HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {STATIC_KEY}\r\n{fields}\r\n"
    return gateway.ask(head.encode())["X-Request-ID"]


def seen(backend: Backend) -> dict[str, str]:
    """What the backend was told, one value a name."""
    lines = backend.last_head().decode().split("\r\n")[1:]
    names = [line.partition(": ")[0] for line in lines]
    assert len(names) == len(set(names)), names
    return dict(line.split(": ", 1) for line in lines)


def test_nobody_is_believed_by_default(start: Callable[[str], Gateway], backend: Backend) -> None:
    """Without TRUSTED_PROXIES the peer is the client, whatever it says of itself, and the id is ours."""
    gateway = start("")
    request_id = ask(gateway, FORGED)
    told = seen(backend)
    assert request_id == told["X-Request-ID"] != "given-1"
    assert (told["X-Forwarded-For"], told["X-Forwarded-Proto"]) == ("127.0.0.1", "http")
    assert told["X-Forwarded-Host"] == "here"
    assert gateway.access(request_id)["client_ip"] == "127.0.0.1"


def test_a_peer_that_is_not_on_the_list_is_not_believed(start: Callable[[str], Gateway], backend: Backend) -> None:
    """Trusting somebody is not trusting everybody."""
    request_id = ask(start("192.0.2.0/24"), FORGED)
    assert request_id != "given-1"
    assert seen(backend)["X-Forwarded-For"] == "127.0.0.1"


def test_a_trusted_router_is_believed(start: Callable[[str], Gateway], backend: Backend) -> None:
    """The rightmost address that no trusted router has is the client; scheme, host and id are taken over."""
    gateway = start("127.0.0.1,198.51.100.0/24")
    assert ask(gateway, FORGED) == "given-1"
    told = seen(backend)
    assert told["X-Request-ID"] == "given-1"
    assert told["X-Forwarded-For"] == "203.0.113.9, 198.51.100.7, 127.0.0.1"
    assert (told["X-Forwarded-Proto"], told["X-Forwarded-Host"]) == ("https", "public.example")
    assert gateway.access("given-1")["client_ip"] == "203.0.113.9"


def test_a_star_believes_the_last_address_only(start: Callable[[str], Gateway], backend: Backend) -> None:
    """Behind an unknown router, what it appended counts; what a client wrote before it does not."""
    gateway = start("*")
    assert ask(gateway, FORGED.replace("given-1", "given-2")) == "given-2"
    assert gateway.access("given-2")["client_ip"] == "198.51.100.7"


@pytest.mark.parametrize("given", ["", "a" * 129, "a b", "a\tb", "é", "<x>", "a\r\nX-Request-ID: b"])
def test_an_id_that_is_none_is_replaced(given: str, start: Callable[[str], Gateway], backend: Backend) -> None:
    """Also a trusted router's id has to be one word of harmless characters, once; otherwise it is ours."""
    request_id = ask(start("*"), f"X-Request-ID: {given}\r\n")
    assert request_id not in (given, "a", "b", "")
    assert seen(backend)["X-Request-ID"] == request_id


@pytest.mark.parametrize("proto", ["ftp", "https, http", "HTTPS", "javascript:"])
def test_only_https_makes_https(proto: str, start: Callable[[str], Gateway], backend: Backend) -> None:
    """A scheme is one of two words."""
    ask(start("*"), f"X-Forwarded-Proto: {proto}\r\n")
    assert seen(backend)["X-Forwarded-Proto"] == "http"
