"""API keys: `python -m tools.keygen --help`."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import click

from app.core.data.issuer import Issued
from app.core.data.records import KeyRecord
from app.core.keys.credential import Env
from app.core.process.settings import DatabaseSettings, load_or_exit
from tools.command import counted, operate, show_fields, show_json, show_table, time_text, told

HOUR_SECONDS: Final = 3_600
STATES: Final = ("active", "expired", "revoked")

key_id_option = click.option("--key-id", required=True, type=click.UUID, help="The key's id (not the key).")
org_id_option = click.option("--org-id", required=True, type=click.UUID, help="The organization.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text for people.")


@click.group()
def main() -> None:
    """API keys, straight in the database at DATABASE_URL.

    Changes are in force in every gateway within a second with Redis, within five without.
    """


@main.command()
@org_id_option
@click.option("--name", required=True, help="What people call the key, 1 to 200 characters.")
@click.option("--env", type=click.Choice(("test", "live")), default="test", show_default=True, help="The key's kind.")
@click.option(
    "--expires",
    type=click.DateTime(formats=["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    help="The last day on which the key works, UTC: it ends at 00:00Z after it. Without this it never ends.",
)
@click.option("--created-by", help="Who asked for it.  [default: cli]")
@json_option
def create(org_id: UUID, name: str, env: Env, expires: datetime | None, created_by: str | None, as_json: bool) -> None:
    """Create a key and print it, this once."""
    ends = _end_of(expires) if expires else None
    issued = operate(lambda issuer: issuer.create_key(str(org_id), name, env, expires_at=ends, created_by=created_by))
    _show_issued(issued, as_json)


@main.command("list")
@org_id_option
@json_option
def list_all(org_id: UUID, as_json: bool) -> None:
    """List an organization's keys, the oldest first (10,000 at most); never the keys themselves.

    As JSON: {"items": [...], "totals": {"total": N, "active": N, "expired": N, "revoked": N}}.
    """
    records = operate(lambda issuer: issuer.list_keys(str(org_id)))
    count = Counter(record.status for record in records)
    totals = {"total": len(records)} | {state: count[state] for state in STATES}
    if as_json:
        show_json({"items": [record.as_json() for record in records], "totals": totals})
        return
    show_table(("id", "prefix", "name", "status", "created", "last used", "expires"), [_row(each) for each in records])
    click.echo(f"{counted(len(records), 'key')}: " + ", ".join(f"{totals[state]} {state}" for state in STATES))


@main.command()
@key_id_option
@click.option("--reason", default="no reason given", show_default=True, help="Kept with the key.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@json_option
def revoke(key_id: UUID, reason: str, yes: bool, as_json: bool) -> None:
    """End a key for good. Asks first on a terminal."""
    if not yes:
        _ask(str(key_id))
    changed = operate(lambda issuer: issuer.revoke_key(str(key_id), reason))
    record = changed.record
    if as_json:
        show_json({**record.as_json(), "heard_by": changed.heard_by})
        return
    click.echo(f"Revoked key {record.prefix}… ({record.name}); {told(changed.heard_by)}.")
    show_fields(
        {"Key ID": record.id, "Revoked": time_text(record.revoked_at, ""), "Reason": record.revoked_reason or ""}
    )


@main.command()
@key_id_option
@click.option(
    "--overlap",
    type=click.FloatRange(min=0, max=365 * 24),
    default=24,
    show_default=True,
    metavar="HOURS",
    help="How long the old key goes on; 0 ends it at once.",
)
@json_option
def rotate(key_id: UUID, overlap: float, as_json: bool) -> None:
    """Create a key like an old one, which ends by itself after the overlap."""
    _show_issued(operate(lambda issuer: issuer.rotate_key(str(key_id), overlap * HOUR_SECONDS)), as_json)


def _ask(key_id: str) -> None:
    """Returns when a person agrees. Raises click's Abort or ClickException: status 1 either way."""
    if not sys.stdin.isatty():
        raise click.ClickException("revoking asks first, and there is no terminal to ask on: add --yes")
    record = operate(lambda issuer: issuer.find_key(key_id))
    last_used = time_text(record.last_used_at, "never")
    click.confirm(f"Revoke {record.prefix}… ({record.name}, last used: {last_used}) for good?", abort=True, err=True)


def _end_of(day: datetime) -> datetime:
    try:
        return day.replace(tzinfo=UTC) + timedelta(days=1)
    except OverflowError:
        raise click.BadParameter("that is too far in the future", param_hint="--expires") from None


def _show_issued(issued: Issued, as_json: bool) -> None:
    if as_json:
        show_json(_issued_json(issued))
        return
    record, organization = issued.record, issued.organization
    click.echo(f"Created a key; {told(issued.heard_by)}.")
    fields = {
        "API key": issued.key,
        "Key ID": record.id,
        "Prefix": record.prefix,
        "Organization": f"{organization.name} ({organization.id})",
        "Tier": organization.tier,
        "Expires": time_text(record.expires_at, "never"),
    }
    if issued.former:
        end, used = time_text(issued.former.expires_at, "never"), time_text(issued.former.last_used_at, "never")
        fields["Old key"] = f"{issued.former.prefix}… ends {end}, last used: {used}"
    show_fields(fields)
    click.echo("\nWARNING: save this key now. It is shown this once and cannot be read again.\n")
    click.echo(f'curl -H "Authorization: Bearer {issued.key}" http://localhost:{_port()}/')


def _issued_json(issued: Issued) -> dict[str, Any]:
    organization, former = issued.organization, issued.former
    value = {
        **issued.record.as_json(),
        "api_key": issued.key,
        "organization_name": organization.name,
        "tier": organization.tier,
        "heard_by": issued.heard_by,
    }
    return value | {"replaces": former.as_json()} if former else value


def _port() -> int:
    return load_or_exit(DatabaseSettings).port


def _row(record: KeyRecord) -> tuple[str, ...]:
    created = time_text(record.created_at, "")
    used, ends = time_text(record.last_used_at, "never"), time_text(record.expires_at, "never")
    return (record.id, record.prefix, record.name, record.status, created, used, ends)


if __name__ == "__main__":
    main(prog_name="python -m tools.keygen")
