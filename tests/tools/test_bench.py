from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.backend import Backend, answer
from tests.command import refusal, run
from tools.bench_report import HEADINGS
from tools.embedded import free_port
from tools.peers import KEY, PEERS, Peer
from tools.placement import Placement, placed

MODULE = "tools.bench"
QUICK = ("--seconds", "0.2", "--concurrency", "2")
REFUSED = b'HTTP/1.1 403 Forbidden\r\nContent-Length: 29\r\n\r\n{"error":"invalid API key"}\r\n'


def test_a_users_installation(tmp_path: Path) -> None:
    """With --url, --key and --direct both are measured with the key where it belongs, and a chart is written."""
    chart = tmp_path / "chart.svg"
    with Backend() as gateway, Backend() as backend:
        urls = ("--url", f"{gateway.url}/x", "--key", "sk_test_1", "--direct", f"{backend.url}/x")
        done = run(MODULE, *urls, *QUICK, "--json", "--chart", str(chart))
        authorized = {request.count(b"Authorization: Bearer sk_test_1\r\n") for request in gateway.requests[1:]}
        assert authorized == {1}
        assert not any(b"uthorization" in request for request in backend.requests)
    assert done.returncode == 0, done
    rows = json.loads(done.stdout)["rows"]
    assert [(row["name"], row["load"], row["errors"]) for row in rows] == [("backend", "2", {}), ("gateway", "2", {})]
    assert rows[1]["added_p50_ms"] == pytest.approx(rows[1]["p50_ms"] - rows[0]["p50_ms"])
    assert chart.read_text().startswith("<svg")


def test_rate_and_rounds() -> None:
    """--rate sends just so many requests a second; --rounds measures again and shows the spread."""
    with Backend() as gateway:
        done = run(MODULE, "--url", gateway.url, "--key", "k", *QUICK, "--rate", "100", "--rounds", "2")
    assert done.returncode == 0, done
    heading, row, note = done.stdout.splitlines()
    assert heading.split("\t") == list(HEADINGS)
    assert row.startswith("gateway\t2 at 100/s\t")
    assert 80 <= int(row.split("\t")[2]) <= 110
    assert note.startswith("added: ")


def test_loads_are_shares_of_the_maximum() -> None:
    """--loads finds the maximum, then measures gateway and backend at these percentages of it."""
    with Backend() as gateway, Backend() as backend:
        urls = ("--url", gateway.url, "--key", "k", "--direct", backend.url)
        done = run(MODULE, *urls, *QUICK, "--loads", "10,50", "--json")
    assert done.returncode == 0, done
    rows = json.loads(done.stdout)["rows"]
    assert [row["load"] for row in rows] == ["maximum", "10 %", "50 %"]
    assert rows[1]["per_second"] == pytest.approx(rows[0]["per_second"] / 10, rel=0.3)
    assert rows[1]["added_p50_ms"] is not None


def test_failed_requests_are_shown_and_status_1() -> None:
    """Requests that fail while measuring are in the table, and the last line counts them."""
    limited = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"
    with Backend() as gateway:
        gateway.script = lambda connection: answer(connection_first(gateway, limited))(connection)
        done = run(MODULE, "--url", gateway.url, "--key", "k", *QUICK)
    assert done.returncode == 1
    assert "429 × " in done.stdout
    assert done.stderr.splitlines()[-1].startswith("Error: ")


def connection_first(gateway: Backend, otherwise: bytes) -> bytes:
    """The first connection (the look before the load) gets a 200, every later one `otherwise`."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" if gateway.accepted == 1 else otherwise


def test_refused_key_is_one_line() -> None:
    """A gateway that refuses the key is asked once, and its answer is told in one line."""
    with Backend(answer(REFUSED)) as gateway:
        line = refusal(run(MODULE, "--url", gateway.url, "--key", "k"))
        assert len(gateway.requests) == 1
    assert line == f'Error: {gateway.url} answered 403, expected 2xx: {{"error":"invalid API key"}}'


def test_gateway_that_is_not_there_is_one_line() -> None:
    """An address where nothing listens ends the command with status 1 and one line."""
    url = f"http://127.0.0.1:{free_port()}/"
    assert refusal(run(MODULE, "--url", url, "--key", "k")).startswith(f"Error: {url} cannot be reached")


URL = ("--url", "http://localhost/", "--key", "k")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "http://localhost/"),
        ("--key", "k"),
        ("--direct", "http://localhost/"),
        ("--url", "localhost:8080", "--key", "k"),
        ("--url", "http://[::1", "--key", "k"),
        ("--url", "http://localhost/a b", "--key", "k\r\nx"),
        (*URL, "--seconds", "0"),
        (*URL, "--seconds", "61"),
        (*URL, "--concurrency", "0"),
        (*URL, "--concurrency", "8,"),
        (*URL, "--concurrency", "1025"),
        (*URL, "--concurrency", ",".join(map(str, range(1, 18)))),
        (*URL, "--loads", "101"),
        (*URL, "--loads", "50", "--rate", "10"),
        (*URL, "--rounds", "0"),
        (*URL, "--chart", "/nowhere/at/all.svg"),
        (*URL, "--chart", "chart.png"),
        ("--only", "apache"),
    ],
)
def test_bad_usage(arguments: tuple[str, ...]) -> None:
    """What cannot be meant is refused with status 2 before anything is started or sent."""
    refusal(run(MODULE, *arguments), status=2)


def test_own_installation_beside_the_peers() -> None:
    """Without --url it starts everything itself: the backend, the gateway, and each peer that is installed."""
    done = run(MODULE, *QUICK, "--json", PATH=os.environ["PATH"])
    assert done.returncode == 0, done
    rows = json.loads(done.stdout)["rows"]
    assert [row["name"] for row in rows] == [
        "backend",
        "gateway",
        *(peer.name for peer in PEERS if peer.is_installed()),
    ]
    assert all(row["per_second"] > 0 and row["errors"] == {} for row in rows)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_peer_configurations_are_complete(peer: Peer, tmp_path: Path) -> None:
    """No placeholder is left in a peer's configuration, and it names the ports it was given and the key."""
    command = peer.command(tmp_path, port=1111, origin=2222, redis=3333)
    text = (tmp_path / peer.configuration).read_text()
    assert command[-1] == str(tmp_path / peer.configuration)
    assert all(word in text for word in ("127.0.0.1:1111", "127.0.0.1:2222", KEY))
    assert not any(f"@{name}@" in text for name in ("FOLDER", "KEY", "PORT", "ORIGIN", "REDIS", "MODULES"))


def test_placement_keeps_what_is_measured_apart() -> None:
    """What is measured shares no processor with what is around it, and starting it there changes nothing for us."""
    placement = Placement.apart()
    before = frozenset(os.sched_getaffinity(0))
    with placed(placement.measured):
        assert placement.measured is None or os.sched_getaffinity(0) == placement.measured
    assert os.sched_getaffinity(0) == before
    if placement.measured is not None and placement.around is not None:
        assert not placement.measured & placement.around
        assert placement.anywhere == before
