"""`python -m tools.orgs`, as a person or a script runs it."""

from __future__ import annotations

import json
import uuid
from typing import Any

from tests.command import refusal, run
from tests.tenants import add_organization, sql


def orgs(url: str, *arguments: str) -> dict[str, Any]:
    """One command with --json that must succeed: its one object."""
    completed = run("tools.orgs", *arguments, "--json", DATABASE_URL=url)
    assert (completed.returncode, completed.stderr) == (0, ""), completed
    answer = json.loads(completed.stdout)
    assert isinstance(answer, dict)
    return answer


def test_an_organization_goes_through_its_life(database_url: str) -> None:
    """Every command changes what it says, answers with the organization as it is now, and leaves an audit line."""
    made = orgs(database_url, "create", "--name", "Acme", "--tier", "basic")
    assert set(made) > {"id", "name", "tier", "active", "created_at", "updated_at", "limits"}
    assert made["created_at"].endswith("Z")
    me = ("--org-id", made["id"])
    own = orgs(database_url, "set-limits", *me, "--per-minute", "5", "--per-day", "50", "--burst", "0")
    assert (own["limits"], own["own_limits"]) == ({"per_minute": 5, "per_day": 50, "burst": 0}, True)
    assert orgs(database_url, "set-tier", *me, "--tier", "premium")["tier"] == "premium"
    assert orgs(database_url, "set-limits", *me, "--plan")["limits"]["per_minute"] == 1_000
    assert orgs(database_url, "deactivate", *me)["active"] is False
    assert orgs(database_url, "activate", *me)["active"] is True
    listed = orgs(database_url, "list")
    assert [each["id"] for each in listed["items"]] == [made["id"]]
    assert listed["totals"] == {"total": 1, "active": 1, "inactive": 0}
    assert sql(database_url, "SELECT DISTINCT who, count(*) FROM audit_log GROUP BY who") == [("cli", 6)]


def test_people_get_text_that_programs_can_cut(database_url: str) -> None:
    """Without --json a list is lines with tabs when piped, and a change is told in a few lines."""
    unit_id = add_organization(database_url, tier="enterprise")
    listed = run("tools.orgs", "list", DATABASE_URL=database_url)
    row = listed.stdout.splitlines()[1].split("\t")
    assert row == [unit_id, "Acme", "enterprise", "yes", "10000", "1000000", "5000", "plan"]
    assert "1 organization: 1 active, 0 inactive" in listed.stdout
    changed = run("tools.orgs", "deactivate", "--org-id", unit_id, DATABASE_URL=database_url)
    assert "Deactivated organization Acme; no gateway was told at once" in changed.stdout
    assert unit_id in changed.stdout


def test_mistakes_get_one_line_and_the_right_status(database_url: str) -> None:
    """What is refused ends with 1 and a sentence, what is misspelled with 2; nothing is written either way."""

    def refused(*arguments: str, status: int = 1, url: str | None = database_url) -> str:
        return refusal(run("tools.orgs", *arguments, DATABASE_URL=url), status)

    unknown = str(uuid.uuid4())
    assert "not found" in refused("set-tier", "--org-id", unknown, "--tier", "basic")
    assert "the name is empty" in refused("create", "--name", " ", "--tier", "basic")
    assert "DATABASE_URL is not set" in refused("list", url=None)
    assert "Connection refused" in refused("list", url="postgresql://postgres:secret@127.0.0.1:1/x")
    assert "'gold' is not one of" in refused("create", "--name", "A", "--tier", "gold", status=2)
    assert "not a valid UUID" in refused("activate", "--org-id", "acme", status=2)
    numbers = ("--per-minute", "1", "--per-day", "1")
    assert "-5" in refused("set-limits", "--org-id", unknown, *numbers, "--burst", "-5", status=2)
    assert "all three" in refused("set-limits", "--org-id", unknown, *numbers, status=2)
    assert "all three" in refused("set-limits", "--org-id", unknown, *numbers, "--burst", "1", "--plan", status=2)
    assert sql(database_url, "SELECT count(*) FROM audit_log") == [(0,)]
