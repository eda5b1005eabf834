from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.core.data.database import Database
from tests.command import refusal, run
from tools import growth_ring, population
from tools.growth_gateway import Refresh, refreshes, split

MODULE = "tools.growth"


def test_small_growth_has_every_figure() -> None:
    """A run with few keys measures all that one with a million does: ring, gateway, refresh, one and two workers."""
    done = run(MODULE, "--keys", "300", "--organizations", "30", "--sample", "100", "--seconds", "0.2", "--json")
    assert done.returncode == 0, done
    told = json.loads(done.stdout)
    assert (told["ring"]["keys"], told["ring"]["refreshed"], told["organizations"]) == (300, 300, 30)
    assert (told["gateway"]["keys"], told["gateway"]["refreshed"]) == (100, 100)
    assert all(told["gateway"][name] > 0 for name in ("one_key_per_second", "random_keys_per_second", "quiet_p99_ms"))
    assert set(told["workers"]) == {"1", "2"}


async def test_ring_figures(database_url: str) -> None:
    """The ring alone: all keys are loaded, found and read again, and the pause is shorter than the refresh."""
    async with Database(database_url, name="test") as database:
        async for _ in population.fill(database, keys=1_200, organizations=40):
            pass
    counts: list[int] = []
    figures = await growth_ring.measure(database_url, 1_200, counts.append)
    assert (figures.keys, figures.refreshed, sum(counts)) == (1_200, 1_200, 1_200)
    assert 0 < figures.find_microseconds < 1_000
    assert 0 < figures.pause_ms <= figures.refresh_seconds * 1000 + 50


def test_requests_are_split_by_the_refresh() -> None:
    """A request belongs to the refresh when any part of it lies within: begun before, during, and none after."""
    refresh = Refresh(1, ended=110.0, seconds=10.0)
    starts, latencies = [90.0, 99.0, 105.0, 109.9, 110.0], [1.0, 2.0, 0.1, 5.0, 0.5]
    assert split(starts, latencies, refresh) == ([1.0, 0.5], [2.0, 0.1, 5.0])


def test_refreshes_are_read_from_the_log(tmp_path: Path) -> None:
    """The refreshes are found between the other lines of a gateway's log, with their end and their duration."""
    log = tmp_path / "output.log"
    message = "[RefreshManager] Refreshed 12 API keys in 1500ms (0 changed, 3 dropped)"
    lines = [{"message": "[RefreshManager] Starting"}, {"path": "/x"}, {"message": message}]
    text = "\n".join(json.dumps({"timestamp": "1970-01-01T00:01:40.250Z", **line}) for line in lines)
    log.write_text(text + "\n")
    assert refreshes(log) == [Refresh(12, 100.25, 1.5)]


@pytest.mark.parametrize(
    "arguments", [("--keys", "99"), ("--keys", "100", "--organizations", "101"), ("--seconds", "0"), ("--sample", "x")]
)
def test_bad_usage(arguments: tuple[str, ...]) -> None:
    """What cannot be meant is refused with status 2 before anything is started."""
    refusal(run(MODULE, *arguments), status=2)
