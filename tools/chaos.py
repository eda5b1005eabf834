"""The outage programme: breaks what a stack of its own depends on, under load, and checks what was promised."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import click
from loguru import logger
from rich.console import Console
from rich.progress import Progress

from tools.command import show_json, show_table
from tools.storm.report import HEADINGS, Row, complaints, markdown
from tools.storm.run import Run, Tempo
from tools.storm.scenarios import PROGRAMME, Scenario
from tools.storm.stack import stack

NAMES = tuple(scenario.name for scenario in PROGRAMME)


def _chosen(_: click.Context, __: click.Parameter, text: str | None) -> tuple[Scenario, ...]:
    names = text.split(",") if text is not None else NAMES
    if unknown := set(names) - set(NAMES):
        raise click.BadParameter(f"unknown: {', '.join(sorted(unknown))}; --list names them all")
    return tuple(scenario for scenario in PROGRAMME if scenario.name in names)


def _carry_out(scenarios: Sequence[Scenario], tempo: Tempo, progress: Progress) -> list[Row]:
    task = progress.add_task("starting", total=len(scenarios) * tempo.scenario_seconds)
    rows = []
    with stack() as running:
        run = Run(running, tempo, lambda seconds: progress.advance(task, seconds))
        for done, scenario in enumerate(scenarios):
            progress.update(task, completed=done * tempo.scenario_seconds, description=scenario.name)
            seen = run.carry_out(scenario)
            rows.append(Row(scenario.name, scenario.text, seen, tuple(each(seen) for each in scenario.promises)))
    return rows


@click.command()
@click.option("--only", "scenarios", callback=_chosen, help="Some of the scenarios, with commas between the names.")
@click.option(
    "--seconds", type=click.FloatRange(2, 60), default=6.0, show_default=True, help="How long each outage lasts."
)
@click.option(
    "--rate",
    type=click.FloatRange(20, 1_000),
    default=200.0,
    show_default=True,
    help="Requests a second with the known key.",
)
@click.option("--list", "is_list", is_flag=True, help="Names the scenarios, and does nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with what the gateways said.")
@click.option("--markdown", "as_markdown", is_flag=True, help="The table as docs/failure-modes.md has it.")
def main(
    scenarios: tuple[Scenario, ...], seconds: float, rate: float, is_list: bool, as_json: bool, as_markdown: bool
) -> None:
    """Starts PostgreSQL, Redis, backends and two gateways of its own, and breaks one after the other under a load.

    The load is open loop, on loopback, over both gateways as a router spreads it: a key that all workers know, keys
    that nobody has, an organization that is driven over its limit, and a key that is revoked. The whole programme takes
    about six minutes.

    Exit status: 0 all promises kept, 1 some broken (the last lines say which) or not to be carried out, 2 bad usage.
    """
    if is_list:
        show_table(("name", "what is done"), [(scenario.name, scenario.text) for scenario in scenarios])
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    logger.disable("app")  # our own connections lose what the gateways lose
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        rows = _carry_out(scenarios, Tempo(rate, seconds), progress)
    if as_json:
        show_json({"rows": [row.as_json() for row in rows]})
    elif as_markdown:
        click.echo(markdown(rows))
    else:
        show_table(HEADINGS, [row.cells() for row in rows])
    if broken := complaints(rows):
        raise click.ClickException("promises were broken\n" + "\n".join(broken))


if __name__ == "__main__":
    main(prog_name="tools/chaos")
