"""The audit log over the admin API."""

from __future__ import annotations

from tests.admin.conftest import Admin
from tests.admin.test_lists import everything, ids

FIELDS = {"id", "at", "who", "address", "action", "subject_kind", "subject_id", "before", "after"}


def test_who_did_what_to_what(admin: Admin) -> None:
    """Filters by who, action, subject and time narrow the log together; the latest line comes first."""
    made = admin.organization(name="Audited")
    path = f"/v1/organizations/{made['id']}"
    admin.call("PATCH", path, {"active": False}, role="editor")
    admin.call("PATCH", path, {"active": True}, role="owner")
    lines = admin.audit(made["id"])
    assert [line["action"] for line in lines] == [
        "organization.activate",
        "organization.deactivate",
        "organization.create",
    ]
    assert all(set(line) == FIELDS for line in lines)
    assert {line["subject_kind"] for line in lines} == {"organization"}
    subject = f"/v1/audit?subject_id={made['id']}"
    assert [line["who"] for line in everything(admin, f"{subject}&who=editor-1")] == ["editor-1"]
    assert len(everything(admin, f"{subject}&action=organization.create")) == 1
    assert ids(everything(admin, subject, 1)) == ids(lines)
    assert everything(admin, f"{subject}&until={lines[0]['at']}&since=2020-01-01T00:00:00Z") == [
        line for line in lines if line["at"] < lines[0]["at"]
    ]
    assert everything(admin, f"{subject}&since=2031-01-01T00:00:00Z") == []


def test_only_owners_read_it(admin: Admin) -> None:
    """The audit log is for owners: viewers and editors get 403."""
    assert [admin.call("GET", "/v1/audit", role=role).status_code for role in ("viewer", "editor", "owner")] == [
        403,
        403,
        200,
    ]


def test_a_refused_change_leaves_no_line(admin: Admin) -> None:
    """What was refused was not done: the log has no line of it."""
    made = admin.key()
    before = len(admin.audit(made["id"]))
    assert admin.call("PATCH", f"/v1/keys/{made['id']}", {"expires_at": "2020-01-01T00:00:00Z"}).status_code == 422
    assert len(admin.audit(made["id"])) == before
