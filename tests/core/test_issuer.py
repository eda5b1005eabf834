"""The verbs for organizations and keys: their rules, their audit lines, and telling the gateways after the commit."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.data.database import StoreUnavailable, transaction
from app.core.data.issuer import Issued, Issuer
from app.core.data.rules import Conflict, Invalid, NotFound, Outdated
from app.core.keys.credential import digest, is_well_formed, prefix
from app.core.model import PLANS, Change, Limits
from tests.tenants import sql

NOBODY = "00000000-0000-0000-0000-0000000000ff"
DAY_SECONDS = 86_400


class Desk:
    """An issuer, and what it told: each change with the state that another connection saw at that moment."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.told: list[Change] = []
        self.versions_seen: list[Any] = []
        self.heard_by: int | None = 3
        transact = functools.partial(transaction, url, name="test")
        self.issuer = Issuer(transact, actor="tester", publish=self._publish)

    async def _publish(self, changes: Sequence[Change]) -> int | None:
        self.told += changes
        self.versions_seen.append(
            sql(self.url, "SELECT version FROM organizations UNION ALL SELECT version FROM api_keys")
        )
        return self.heard_by

    async def organization(self) -> str:
        return (await self.issuer.create_organization("Acme", "basic")).record.id

    async def key(self, **options: Any) -> Issued:
        return await self.issuer.create_key(await self.organization(), "a key", "live", **options)

    def audit(self) -> list[tuple[Any, ...]]:
        return sql(self.url, "SELECT who, action, subject_id::text, before, after FROM audit_log ORDER BY id")


@pytest.fixture
def desk(database_url: str) -> Desk:
    return Desk(database_url)


# --- organizations ---


async def test_an_organization_goes_through_its_life(desk: Desk) -> None:
    """Created on a plan, given numbers of its own, moved, put back on its plan, ended and begun again."""
    issuer = desk.issuer
    made = (await issuer.create_organization("  Acme Corporation ", "basic")).record
    assert (made.name, made.tier, made.active, made.limits) == ("Acme Corporation", "basic", True, PLANS["basic"])
    own = (await issuer.set_limits(made.id, Limits(5, 50, 0))).record
    assert (own.limits, own.has_own_limits) == (Limits(5, 50, 0), True)
    assert (await issuer.set_limits(made.id, Limits(6, 60, 1))).record.limits == Limits(6, 60, 1)
    moved = (await issuer.set_tier(made.id, "premium")).record
    assert (moved.tier, moved.limits) == ("premium", Limits(6, 60, 1))
    back = (await issuer.set_limits(made.id, None)).record
    assert (back.limits, back.has_own_limits) == (PLANS["premium"], False)
    assert not (await issuer.set_active(made.id, active=False)).record.active
    again = (await issuer.set_active(made.id, active=True)).record
    assert again.active
    assert await issuer.list_organizations() == [again]
    actions = [line[1] for line in desk.audit()]
    assert actions == [
        "organization.create",
        *["organization.set_limits"] * 2,
        "organization.set_tier",
        "organization.set_limits",
        "organization.deactivate",
        "organization.activate",
    ]
    assert desk.told == [Change("organization", made.id)] * len(actions)


async def test_asking_twice_changes_nothing_the_second_time(desk: Desk) -> None:
    """Deactivating what is inactive succeeds, and the version that an ETag is made of stays."""
    unit_id = await desk.organization()
    first = await desk.issuer.set_active(unit_id, active=False)
    second = await desk.issuer.set_active(unit_id, active=False)
    assert first.record == second.record


@pytest.mark.parametrize("name", ["", "   ", "n" * 201, "a\nb", "a\x1b[31m", "\ud800", "\u202ebackwards"])
async def test_names_that_would_garble_a_list_are_refused(desk: Desk, name: str) -> None:
    """A name is something to read: not empty, not endless, nothing that a terminal would obey."""
    with pytest.raises(Invalid, match="the name"):
        await desk.issuer.create_organization(name, "basic")
    assert desk.audit() == []
    assert desk.told == []


async def test_impossible_organizations_are_refused(desk: Desk) -> None:
    """Unknown tiers, unknown or malformed ids and impossible numbers are refused with nothing written."""
    unit_id = await desk.organization()
    issuer = desk.issuer
    with pytest.raises(Invalid, match="expected one of basic, premium, enterprise"):
        await issuer.create_organization("Acme", "gold")
    with pytest.raises(Invalid, match="tier is unknown"):
        await issuer.set_tier(unit_id, "gold")
    with pytest.raises(NotFound, match="not found"):
        await issuer.set_tier(NOBODY, "basic")
    with pytest.raises(Invalid, match="no UUID"):
        await issuer.set_active("acme", active=True)
    for limits in (Limits(0, 1, 1), Limits(1, 0, 1), Limits(1, 1, -1), Limits(2**31, 1, 1)):
        with pytest.raises(Invalid, match="expected"):
            await issuer.set_limits(unit_id, limits)
    assert len(desk.audit()) == 1


# --- keys ---


async def test_a_new_key_is_stored_as_a_digest_only(desk: Desk) -> None:
    """The key exists in the answer; the database has its digest and prefix, the lists and the audit log neither."""
    issued = await desk.key(scopes=["read", "write", "read"], created_by="Ann")
    assert is_well_formed(issued.key.encode())
    [(stored, shown)] = sql(desk.url, "SELECT key_digest, prefix FROM api_keys")
    assert (stored, shown) == (digest(issued.key).hex(), prefix(issued.key))
    record = issued.record
    assert (record.status, record.env, record.scopes, record.created_by) == ("active", "live", ("read", "write"), "Ann")
    assert await desk.issuer.list_keys(record.organization_id) == [record]
    shown_everywhere = f"{issued!r} {record.as_json()} {json.dumps([line[3:] for line in desk.audit()])}"
    assert issued.key not in shown_everywhere
    assert stored not in shown_everywhere


async def test_keys_that_could_not_work_are_refused(desk: Desk) -> None:
    """No key for an inactive or unknown organization, none that has expired already, none with a garbled scope."""
    unit_id = await desk.organization()
    create = desk.issuer.create_key
    with pytest.raises(Invalid, match="past"):
        await create(unit_id, "late", "test", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(Invalid, match="scope"):
        await create(unit_id, "odd", "test", scopes=["re ad"])
    with pytest.raises(Invalid, match="more than 32"):
        await create(unit_id, "many", "test", scopes=[str(number) for number in range(33)])
    with pytest.raises(NotFound):
        await create(NOBODY, "nobody's", "test")
    await desk.issuer.set_active(unit_id, active=False)
    with pytest.raises(Conflict, match="inactive"):
        await create(unit_id, "useless", "test")
    assert sql(desk.url, "SELECT count(*) FROM api_keys") == [(0,)]
    assert [line[1] for line in desk.audit()] == ["organization.create", "organization.deactivate"]


async def test_a_key_is_revoked_once_for_a_reason(desk: Desk) -> None:
    """Revoking notes when and why, ends also a key that has expired, and a second time is a conflict."""
    issued = await desk.key()
    key_id = issued.record.id
    sql(desk.url, "UPDATE api_keys SET expires_at = now()")
    assert (await desk.issuer.find_key(key_id)).status == "expired"
    revoked = (await desk.issuer.revoke_key(key_id, " leaked ")).record
    assert (revoked.status, revoked.revoked_reason) == ("revoked", "leaked")
    assert revoked.revoked_at is not None
    with pytest.raises(Conflict, match="revoked already"):
        await desk.issuer.revoke_key(key_id, "again")
    with pytest.raises(Invalid, match="the reason"):
        await desk.issuer.revoke_key(key_id, "r" * 501)
    with pytest.raises(NotFound):
        await desk.issuer.revoke_key(NOBODY, "gone")
    who, action, subject, before, after = desk.audit()[-1]
    assert (who, action, subject) == ("tester", "key.revoke", key_id)
    assert (before["revoked_reason"], after["revoked_reason"]) == (None, "leaked")


async def test_a_rotated_key_is_like_the_old_one_which_ends_after_the_overlap(desk: Desk) -> None:
    """The successor keeps organization, name, env, scopes and expiry; the old key names it and ends in time."""
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    old = (await desk.key(scopes=["read"], expires_at=end)).record
    issued = await desk.issuer.rotate_key(old.id, DAY_SECONDS)
    new, former = issued.record, issued.former
    assert former is not None
    kept = ("organization_id", "name", "env", "scopes", "expires_at")
    assert [getattr(new, name) for name in kept] == [getattr(old, name) for name in kept]
    assert (former.status, former.replaced_by) == ("active", new.id)
    assert former.expires_at is not None
    assert abs((former.expires_at - datetime.now(UTC)).total_seconds() - DAY_SECONDS) < 60
    assert set(desk.told[-2:]) == {Change("key", new.id), Change("key", old.id)}
    assert [line[1:3] for line in desk.audit()[-2:]] == [("key.create", new.id), ("key.rotate", old.id)]


async def test_an_overlap_of_nothing_ends_the_old_key_at_once(desk: Desk) -> None:
    """With an overlap of 0 the old key has expired when the verb returns."""
    old = (await desk.key()).record
    issued = await desk.issuer.rotate_key(old.id, 0)
    assert issued.former is not None
    assert (issued.former.status, issued.record.status) == ("expired", "active")


async def test_an_overlap_never_prolongs_a_key(desk: Desk) -> None:
    """A key that ends before the overlap does keeps its own end."""
    end = datetime.now(UTC) + timedelta(hours=1)
    old = (await desk.key(expires_at=end)).record
    issued = await desk.issuer.rotate_key(old.id, DAY_SECONDS)
    assert issued.former is not None
    assert issued.former.expires_at == old.expires_at


async def test_keys_that_ended_are_not_rotated(desk: Desk) -> None:
    """Rotated, expired and revoked keys, those of inactive organizations and odd overlaps are refused."""
    rotated, expired, revoked, inactive = [(await desk.key()).record for _ in range(4)]
    successor = (await desk.issuer.rotate_key(rotated.id, 60)).record
    sql(desk.url, "UPDATE api_keys SET expires_at = now() WHERE id = %s", expired.id)
    await desk.issuer.revoke_key(revoked.id, "lost")
    await desk.issuer.set_active(inactive.organization_id, active=False)
    lines = len(desk.audit())
    for record, words in ((rotated, successor.id), (expired, "expired"), (revoked, "revoked"), (inactive, "inactive")):
        with pytest.raises(Conflict, match=words):
            await desk.issuer.rotate_key(record.id, 60)
    for overlap in (-1.0, float("nan"), float("inf")):
        with pytest.raises(Invalid, match="overlap"):
            await desk.issuer.rotate_key(successor.id, overlap)
    assert len(desk.audit()) == lines


async def test_two_rotations_at_once_make_one_successor(desk: Desk) -> None:
    """The second of two that come together is refused instead of leaving two keys that nobody counted on."""
    old = (await desk.key()).record
    both = await asyncio.gather(*(desk.issuer.rotate_key(old.id, 60) for _ in range(2)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in both) == ["Conflict", "Issued"]
    assert sql(desk.url, "SELECT count(*) FROM api_keys") == [(2,)]


# --- changes of several things, and who makes them ---


async def test_several_things_change_together(desk: Desk) -> None:
    """Name, tier and activity are one change with one audit line; what is not named stays; one bad value stops all."""
    unit_id = await desk.organization()
    changed = (await desk.issuer.update_organization(unit_id, {"name": " New ", "tier": "premium"})).record
    assert (changed.name, changed.tier, changed.active) == ("New", "premium", True)
    with pytest.raises(Invalid) as refused:
        await desk.issuer.update_organization(unit_id, {"active": False, "name": ""})
    assert refused.value.field == "name"
    assert [line[1] for line in desk.audit()] == ["organization.create", "organization.update"]


async def test_a_key_is_changed(desk: Desk) -> None:
    """Name, scopes and expiry change, a None takes the expiry away; not into the past, and not for a revoked key."""
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    key_id = (await desk.key(expires_at=end, scopes=["a"])).record.id
    changed = (await desk.issuer.update_key(key_id, {"name": " new ", "scopes": ["b", "b"]})).record
    assert (changed.name, changed.scopes, changed.expires_at) == ("new", ("b",), end)
    changed = (await desk.issuer.update_key(key_id, {"expires_at": None, "scopes": []})).record
    assert (changed.name, changed.scopes, changed.expires_at) == ("new", (), None)
    with pytest.raises(Invalid, match="past"):
        await desk.issuer.update_key(key_id, {"expires_at": datetime.now(UTC) - timedelta(seconds=1)})
    await desk.issuer.revoke_key(key_id, "lost")
    with pytest.raises(Conflict, match="revoked already"):
        await desk.issuer.update_key(key_id, {"name": "dead"})
    assert [line[1] for line in desk.audit()][2:] == ["key.update", "key.update", "key.revoke"]


async def test_a_guard_sees_the_record_and_may_stop_the_change(desk: Desk) -> None:
    """Every verb on what exists asks its guard; one that says no leaves everything as it was, untold."""
    issuer = desk.issuer
    record = (await desk.key()).record
    unit_id, told = record.organization_id, len(desk.told)
    seen: list[str] = []

    def never(before: Any) -> bool:
        seen.append(before.id)
        return False

    for verb in (
        issuer.update_organization(unit_id, {"name": "n"}, guard=never),
        issuer.set_limits(unit_id, None, guard=never),
        issuer.update_key(record.id, {"name": "n"}, guard=never),
        issuer.revoke_key(record.id, "r", guard=never),
        issuer.rotate_key(record.id, 60, guard=never),
    ):
        with pytest.raises(Outdated, match="changed since it was read"):
            await verb
    assert seen == [unit_id] * 2 + [record.id] * 3
    assert (len(desk.told), len(desk.audit())) == (told, 2)
    assert (
        await issuer.update_key(record.id, {"name": "n"}, guard=lambda before: before.version == 1)
    ).record.version == 2


async def test_the_audit_log_knows_from_where(desk: Desk) -> None:
    """An issuer that acts for an address writes it down; the commands have none."""
    transact = functools.partial(transaction, desk.url, name="test")
    away = Issuer(transact, actor="ann", publish=desk._publish, address="2001:db8::7")
    await away.create_organization("Acme", "basic", active=False)
    await desk.organization()
    assert sql(desk.url, "SELECT who, host(address), after->'active' FROM audit_log ORDER BY id") == [
        ("ann", "2001:db8::7", False),
        ("tester", None, True),
    ]


# --- telling ---


async def test_gateways_are_told_after_the_commit(desk: Desk) -> None:
    """At the moment of the message another connection already sees the new state, so no gateway reads the old one."""
    unit_id = await desk.organization()
    await desk.issuer.set_tier(unit_id, "premium")
    await desk.issuer.set_tier(unit_id, "basic")
    assert desk.versions_seen == [[(1,)], [(2,)], [(3,)]]


async def test_a_change_that_nobody_heard_of_is_done_all_the_same(desk: Desk) -> None:
    """With Redis away the verb succeeds and says that no gateway was told."""
    desk.heard_by = None
    issued = await desk.key()
    assert issued.heard_by is None
    assert (await desk.issuer.find_key(issued.record.id)).status == "active"


async def test_without_a_database_the_verbs_say_so() -> None:
    """A database that is away is a StoreUnavailable with its reason, and nothing is told."""
    desk = Desk("postgresql://postgres@127.0.0.1:1/x")
    with pytest.raises(StoreUnavailable, match="Connection refused"):
        await desk.issuer.list_organizations()
    assert desk.told == []
