"""`python -m tools.keygen`, as a person or a script runs it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
import time
import uuid
from typing import Any

import pytest

from app.core.changes.change_message import decode
from app.core.changes.feed import CHANNEL
from app.core.keys.credential import digest, is_well_formed
from app.core.model import Change
from app.core.process.addresses import redis as redis_address
from app.core.redis.link import RedisLink, Subscribed
from tests.command import ROOT, refusal, run
from tests.tenants import ACME, add_key, add_organization, sql
from tools.embedded import RedisServer

ORG = ("--org-id", ACME)
REDIS_AWAY_SECONDS = 1.0


@pytest.fixture
def url(database_url: str) -> str:
    """A database with one organization."""
    add_organization(database_url)
    return database_url


def keygen(url: str, *arguments: str, **variables: str) -> dict[str, Any]:
    """One command with --json that must succeed: its one object."""
    completed = run("tools.keygen", *arguments, "--json", DATABASE_URL=url, **variables)
    assert (completed.returncode, completed.stderr) == (0, ""), completed
    answer = json.loads(completed.stdout)
    assert isinstance(answer, dict)
    return answer


def test_a_key_goes_through_its_life(url: str) -> None:
    """Created, listed, rotated and revoked; the key itself appears in the answer that made it and never again."""
    made = keygen(url, "create", *ORG, "--name", "CI", "--env", "live", "--created-by", "Ann")
    assert is_well_formed(made["api_key"].encode())
    assert (made["prefix"], made["env"]) == (made["api_key"][:12], "live")
    assert (made["organization_id"], made["tier"], made["created_by"]) == (ACME, "basic", "Ann")
    assert made["expires_at"] is None
    successor = keygen(url, "rotate", "--key-id", made["id"], "--overlap", "0")
    assert (successor["name"], successor["env"], successor["replaces"]["id"]) == ("CI", "live", made["id"])
    assert successor["replaces"]["status"] == "expired"
    revoked = keygen(url, "revoke", "--key-id", successor["id"], "--reason", "leaked", "--yes")
    assert (revoked["status"], revoked["revoked_reason"]) == ("revoked", "leaked")
    listed = run("tools.keygen", "list", *ORG, "--json", DATABASE_URL=url).stdout
    answer = json.loads(listed)
    assert [item["status"] for item in answer["items"]] == ["expired", "revoked"]
    assert answer["totals"] == {"total": 2, "active": 0, "expired": 1, "revoked": 1}
    audit = str(sql(url, "SELECT who, before, after FROM audit_log"))
    for key in (made["api_key"], successor["api_key"]):
        for text in (listed, audit, str(revoked)):
            assert key not in text
            assert digest(key).hex() not in text


def test_people_see_all_they_need_once(url: str) -> None:
    """Creating prints the key, its data, the warning and a curl line for the configured port."""
    made = run("tools.keygen", "create", *ORG, "--name", "mine", DATABASE_URL=url, PORT="8123")
    key = re.search(r"sk_test_[0-9a-f]{32}", made.stdout)
    assert key is not None
    assert f'curl -H "Authorization: Bearer {key[0]}" http://localhost:8123/' in made.stdout
    for words in ("save this key now", ACME, "Acme", "basic", "Expires:", "never", key[0][:12]):
        assert words in made.stdout
    listed = run("tools.keygen", "list", *ORG, DATABASE_URL=url).stdout
    names, row, totals = listed.splitlines()
    assert names.split("\t") == ["id", "prefix", "name", "status", "created", "last used", "expires"]
    assert row.split("\t")[1:4] == [key[0][:12], "mine", "active"]
    assert totals == "1 key: 1 active, 0 expired, 0 revoked"
    assert key[0] not in listed


def test_an_expiry_is_the_last_day_on_which_the_key_works(url: str) -> None:
    """--expires names a UTC day; the key ends when that day does."""
    made = keygen(url, "create", *ORG, "--name", "n", "--expires", "2999-12-31")
    assert made["expires_at"] == "3000-01-01T00:00:00Z"


def test_rotating_keeps_the_old_key_for_a_day(url: str) -> None:
    """Without --overlap the old key goes on for 24 hours."""
    old_id = add_key(url)
    assert keygen(url, "rotate", "--key-id", old_id)["replaces"]["status"] == "active"
    left = "SELECT round(extract(epoch FROM expires_at - now()) / 3600)::int FROM api_keys WHERE id = %s"
    assert sql(url, left, old_id) == [(24,)]


def test_mistakes_get_one_line_and_the_right_status(url: str) -> None:
    """What is refused ends with 1 and a sentence, what is misspelled with 2; nothing is written either way."""

    def refused(*arguments: str, status: int = 1) -> str:
        return refusal(run("tools.keygen", *arguments, DATABASE_URL=url), status)

    key_id, unknown = add_key(url), str(uuid.uuid4())
    create = ("create", *ORG, "--name", "n")
    assert "the expiry lies in the past" in refused(*create, "--expires", "2020-01-01")
    assert "does not match the format" in refused(*create, "--expires", "tomorrow", status=2)
    assert "too far in the future" in refused(*create, "--expires", "9999-12-31", status=2)
    assert "is not one of" in refused(*create, "--env", "prod", status=2)
    assert "not a valid UUID" in refused("list", "--org-id", "acme", status=2)
    assert "Missing option" in refused("create", *ORG, status=2)
    assert "-1" in refused("rotate", "--key-id", key_id, "--overlap", "-1", status=2)
    assert "overlap" in refused("rotate", "--key-id", key_id, "--overlap", "nan")
    assert "not found" in refused("create", "--org-id", unknown, "--name", "n")
    assert "not found" in refused("list", "--org-id", unknown)
    assert "not found" in refused("revoke", "--key-id", unknown, "--yes")
    assert "add --yes" in refused("revoke", "--key-id", key_id)
    assert sql(url, "SELECT count(*) FROM audit_log") == [(0,)]
    sql(url, "UPDATE api_keys SET revoked_at = now(), revoked_reason = 'lost'")
    assert "revoked already" in refused("revoke", "--key-id", key_id, "--yes")
    assert "revoked" in refused("rotate", "--key-id", key_id)
    sql(url, "UPDATE organizations SET active = false")
    assert "inactive" in refused(*create)


@pytest.mark.parametrize(("answer", "status", "revoked"), [(b"n\n", 1, False), (b"y\n", 0, True)])
def test_revoking_asks_first_on_a_terminal(url: str, answer: bytes, status: int, revoked: bool) -> None:
    """A person at a terminal is shown which key it is and asked; only a yes ends it, and stdout stays pure JSON."""
    key_id = add_key(url)
    ours, theirs = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": url}
    command = [sys.executable, "-m", "tools.keygen", "revoke", "--key-id", key_id, "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=theirs, stdout=pipe, stderr=pipe) as process:
        os.write(ours, answer)
        told, asked = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == status
    assert b"Revoke sk_test_0000" in asked
    assert (sql(url, "SELECT revoked_at IS NOT NULL FROM api_keys"), bool(told)) == ([(revoked,)], revoked)


async def test_gateways_hear_of_a_change_at_once(url: str, redis_url: str) -> None:
    """With Redis there every change is published, and the answer says how many gateway workers heard it."""
    heard: list[Change] = []
    async with RedisLink(redis_address(redis_url), name="listener") as link:
        messages = link.listen(CHANNEL)
        assert isinstance(await anext(messages), Subscribed)
        made = await asyncio.to_thread(keygen, url, "create", *ORG, "--name", "n", REDIS_URL=redis_url)
        message = await asyncio.wait_for(anext(messages), 5)
        assert isinstance(message, bytes)
        heard += decode(message)
    assert made["heard_by"] == 1
    assert heard == [Change("key", made["id"])]


STARTS_DIFFER_SECONDS = 8.0
"""By so much on a crowded machine. The second itself is held by test_changes, in one process."""


def test_a_redis_that_is_away_or_hangs_costs_a_second_at_most(url: str, own_redis: RedisServer) -> None:
    """The change is made all the same; the answer says that nobody was told, and soon."""

    def seconds_of(**variables: str) -> float:
        began = time.monotonic()
        assert keygen(url, "create", *ORG, "--name", "n", **variables)["heard_by"] is None
        return time.monotonic() - began

    usual = seconds_of()
    own_redis.freeze()
    assert seconds_of(REDIS_URL=own_redis.url) < usual + REDIS_AWAY_SECONDS + STARTS_DIFFER_SECONDS
    own_redis.thaw()
    own_redis.kill()
    assert seconds_of(REDIS_URL=own_redis.url) < usual + REDIS_AWAY_SECONDS + STARTS_DIFFER_SECONDS
    assert sql(url, "SELECT count(*) FROM api_keys") == [(3,)]
