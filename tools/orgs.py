"""Organizations and their limits: `python -m tools.orgs --help`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import UUID

import click

from app.core.data.issuer import Changed, Issuer
from app.core.data.records import OrganizationRecord
from app.core.model import PLANS, Limits
from tools.command import counted, operate, show_fields, show_json, show_table, told

TIERS: Final = click.Choice(tuple(PLANS))
NUMBER: Final = click.IntRange(min=1)

Verb = Callable[[Issuer], Awaitable[Changed[OrganizationRecord]]]

org_id_option = click.option("--org-id", required=True, type=click.UUID, help="The organization.")
tier_option = click.option("--tier", required=True, type=TIERS, help="The plan.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text for people.")


@click.group()
def main() -> None:
    """Organizations and their limits, straight in the database at DATABASE_URL.

    Changes are in force in every gateway within a second with Redis, within five without.
    """


@main.command()
@click.option("--name", required=True, help="What people call it, 1 to 200 characters.")
@tier_option
@json_option
def create(name: str, tier: str, as_json: bool) -> None:
    """Create an organization, active, with its tier's limits."""
    _change(lambda issuer: issuer.create_organization(name, tier), "Created", as_json)


@main.command("list")
@json_option
def list_all(as_json: bool) -> None:
    """List organizations, the oldest first (10,000 at most).

    As JSON: {"items": [...], "totals": {"total": N, "active": N, "inactive": N}}.
    """
    records = operate(Issuer.list_organizations)
    active = sum(record.active for record in records)
    totals = {"total": len(records), "active": active, "inactive": len(records) - active}
    if as_json:
        show_json({"items": [record.as_json() for record in records], "totals": totals})
        return
    names = ("id", "name", "tier", "active", "per minute", "per day", "burst", "limits")
    show_table(names, [_row(record) for record in records])
    click.echo(f"{counted(len(records), 'organization')}: {active} active, {totals['inactive']} inactive")


@main.command("set-limits")
@org_id_option
@click.option("--per-minute", type=NUMBER, help="Requests per UTC minute.")
@click.option("--per-day", type=NUMBER, help="Requests per UTC day.")
@click.option("--burst", type=click.IntRange(min=0), help="Unused requests that roll over into the next minute.")
@click.option("--plan", is_flag=True, help="The tier's limits again, instead of numbers of its own.")
@json_option
def set_limits(org_id: UUID, plan: bool, as_json: bool, **numbers: int | None) -> None:
    """Give an organization three numbers of its own, or its plan's again."""
    given = {name: number for name, number in numbers.items() if number is not None}
    if bool(given) == plan or (given and len(given) < len(numbers)):
        raise click.UsageError("Give --per-minute, --per-day and --burst, all three, or --plan alone.")
    limits = None if plan else Limits(**given)
    _change(lambda issuer: issuer.set_limits(str(org_id), limits), "Changed", as_json)


@main.command("set-tier")
@org_id_option
@tier_option
@json_option
def set_tier(org_id: UUID, tier: str, as_json: bool) -> None:
    """Put an organization on another plan. Its own limits, if it has any, stay."""
    _change(lambda issuer: issuer.set_tier(str(org_id), tier), "Changed", as_json)


@main.command()
@org_id_option
@json_option
def deactivate(org_id: UUID, as_json: bool) -> None:
    """Refuse all requests with the organization's keys, until it is activated again."""
    _change(lambda issuer: issuer.set_active(str(org_id), active=False), "Deactivated", as_json)


@main.command()
@org_id_option
@json_option
def activate(org_id: UUID, as_json: bool) -> None:
    """Let the organization's keys in again."""
    _change(lambda issuer: issuer.set_active(str(org_id), active=True), "Activated", as_json)


def _change(verb: Verb, done: str, as_json: bool) -> None:
    changed = operate(verb)
    record = changed.record
    if as_json:
        show_json({**record.as_json(), "heard_by": changed.heard_by})
        return
    click.echo(f"{done} organization {record.name}; {told(changed.heard_by)}.")
    show_fields(_fields(record))


def _fields(record: OrganizationRecord) -> dict[str, Any]:
    limits = record.limits
    whose = "its own" if record.has_own_limits else "its plan's"
    return {
        "ID": record.id,
        "Name": record.name,
        "Tier": record.tier,
        "Active": "yes" if record.active else "no",
        "Limits": f"{limits.per_minute:,} per minute, {limits.per_day:,} per day, burst {limits.burst:,} ({whose})",
    }


def _row(record: OrganizationRecord) -> tuple[str, ...]:
    limits = record.limits
    numbers = (str(limits.per_minute), str(limits.per_day), str(limits.burst))
    state, whose = ("yes" if record.active else "no"), ("own" if record.has_own_limits else "plan")
    return (record.id, record.name, record.tier, state, *numbers, whose)


if __name__ == "__main__":
    main(prog_name="python -m tools.orgs")
