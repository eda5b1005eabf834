"""`python -m tools.fuzz`: hostile requests and hostile answers through a gateway of its own, until the time is over.

Of each it says how many were played and how many came through, or shows the smallest case that did what it must not.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import click
import hypothesis
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from tools.fuzz_answers import check_exchange, exchanges
from tools.fuzz_requests import Violation, check_stream, streams
from tools.fuzz_stand import Stand

BATCH: Final = 300
Check = Callable[[Stand, Any], Awaitable[bool]]
KINDS: Final[dict[str, tuple[Callable[[], SearchStrategy[Any]], Check]]] = {
    "requests": (streams, check_stream),
    "answers": (exchanges, check_exchange),
}


class Fuzz:
    """A stand on a loop of its own. A context manager; `play` as often as you like."""

    def __enter__(self) -> Fuzz:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.stand = self._runner.run(Stand().__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self.stand.__aexit__())
        self._runner.close()

    def play(self, kind: str, seed: int, examples: int) -> Counter[str]:
        """So many cases of this kind; counts them under `played` and `came through`. Raises Violation."""
        make, check = KINDS[kind]
        counted: Counter[str] = Counter()

        @hypothesis.seed(seed)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        @given(make())
        def each(case: object) -> None:
            counted["played"] += 1
            counted["came through"] += self._runner.run(_as_coroutine(check(self.stand, case)))

        each()
        if "Traceback" in self.stand.log.read_text():
            raise Violation(f"the gateway complains:\n{self.stand.log.read_text()[-4_000:]}")
        return counted


async def _as_coroutine(result: Awaitable[bool]) -> bool:
    return await result


@click.command()
@click.option("--seconds", type=click.FloatRange(1, 86_400), default=60.0, show_default=True, help="How long.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed plays the same cases.")
def main(seconds: float, seed: int) -> None:
    """Sends hostile requests and answers through a gateway, which has to refuse them or to understand them as meant."""
    totals: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    deadline = time.monotonic() + seconds
    with Fuzz() as fuzz:
        while time.monotonic() < deadline:
            for kind, total in totals.items():
                try:
                    total.update(fuzz.play(kind, seed, BATCH))
                except Violation as violation:
                    raise click.ClickException(f"{kind}, seed {seed}: {violation}") from None
            seed += 1
    for kind, total in totals.items():
        click.echo(f"{kind}: {total['played']} played, {total['came through']} came through, none did harm")


if __name__ == "__main__":
    main()
