"""What the database itself refuses, counts and announces, whoever writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import LiteralString
from urllib.parse import urlsplit

import psycopg
import pytest

from app.core.model import PLANS, Limits
from db.migrate import available, migrate
from tests.tenants import ACME, add_key, add_organization, sql

KEY: LiteralString = "INSERT INTO api_keys (organization_id, name, env, prefix, key_digest) VALUES "
DIGEST: LiteralString = "repeat('ab', 32)"
UNUSED: LiteralString = "repeat('cd', 32)"


@pytest.fixture
def url(database_url: str) -> str:
    """A database with one organization and its key."""
    add_organization(database_url)
    add_key(database_url)
    sql(database_url, "UPDATE api_keys SET key_digest = %s", "ab" * 32)
    return database_url


REFUSED: list[tuple[LiteralString, LiteralString]] = [
    ("a digest that is no hex", KEY + f"('{ACME}', 'n', 'test', 'sk_test_0000', repeat('xy', 32))"),
    ("a digest in capitals", KEY + f"('{ACME}', 'n', 'test', 'sk_test_0000', repeat('AB', 32))"),
    ("a short digest", KEY + f"('{ACME}', 'n', 'test', 'sk_test_0000', repeat('ab', 31))"),
    ("a digest twice", KEY + f"('{ACME}', 'n', 'test', 'sk_test_0000', {DIGEST})"),
    ("a prefix that is no prefix", KEY + f"('{ACME}', 'n', 'test', 'sk_test_000g', {UNUSED})"),
    ("a prefix of the other kind", KEY + f"('{ACME}', 'n', 'test', 'sk_live_0000', {UNUSED})"),
    ("a whole key as its prefix", KEY + f"('{ACME}', 'n', 'test', 'sk_test_' || repeat('0', 32), {UNUSED})"),
    ("a third kind", KEY + f"('{ACME}', 'n', 'prod', 'sk_prod_0000', {UNUSED})"),
    ("a key of nobody", KEY + f"(gen_random_uuid(), 'n', 'test', 'sk_test_0000', {UNUSED})"),
    ("a blank name", "UPDATE api_keys SET name = '  '"),
    ("a long name", "UPDATE api_keys SET name = repeat('n', 201)"),
    ("a name over two lines", "UPDATE api_keys SET name = E'a\\nb'"),
    ("revoked without a reason", "UPDATE api_keys SET revoked_at = now()"),
    ("a reason without being revoked", "UPDATE api_keys SET revoked_reason = 'lost'"),
    ("revoked for a blank reason", "UPDATE api_keys SET revoked_at = now(), revoked_reason = ' '"),
    ("an expiry that is never", "UPDATE api_keys SET expires_at = 'infinity'"),
    ("its own successor", "UPDATE api_keys SET replaced_by = id"),
    ("a scope that is null", "UPDATE api_keys SET scopes = ARRAY['a', NULL]"),
    ("too many scopes", "UPDATE api_keys SET scopes = array_fill('a'::text, ARRAY[33])"),
    ("a tier that no plan has", "UPDATE organizations SET tier = 'gold'"),
    ("an organization without a name", "UPDATE organizations SET name = ''"),
    ("an organization with keys going away", "DELETE FROM organizations"),
    ("no request a minute", "INSERT INTO organization_limits SELECT id, 0, 1, 0 FROM organizations"),
    ("no request a day", "INSERT INTO organization_limits SELECT id, 1, 0, 0 FROM organizations"),
    ("less than no burst", "INSERT INTO organization_limits SELECT id, 1, 1, -1 FROM organizations"),
    ("a plan without requests", "UPDATE plans SET per_minute = 0"),
    ("a change of nothing", "INSERT INTO changes (kind) VALUES ('key')"),
    ("a change of everything by id", "INSERT INTO changes (kind, ref) VALUES ('all', gen_random_uuid())"),
    (
        "a secret in the audit log",
        "INSERT INTO audit_log (who, action, subject_kind, after) VALUES ('x', 'a.b', 'key', '{\"key_digest\": 1}')",
    ),
]


@pytest.mark.parametrize(("what", "statement"), REFUSED, ids=[what for what, _ in REFUSED])
def test_the_database_refuses(url: str, what: str, statement: LiteralString) -> None:
    """What must hold, holds in the database: a statement that would break it is refused as a whole."""
    with pytest.raises(psycopg.errors.IntegrityError):
        sql(url, statement)


def test_the_plans_are_the_ones_sold(database_url: str) -> None:
    """The database and the gateway agree on every tier's numbers."""
    rows = sql(database_url, "SELECT tier, per_minute, per_day, burst FROM plans")
    assert {tier: Limits(*numbers) for tier, *numbers in rows} == PLANS


def test_the_audit_log_can_only_grow(url: str) -> None:
    """No statement changes or removes a line, not even one that matches none."""
    insert: LiteralString = "INSERT INTO audit_log (who, action, subject_kind) VALUES ('x', 'key.create', 'key')"
    sql(url, insert)
    statements: tuple[LiteralString, ...] = (
        "UPDATE audit_log SET who = 'y'",
        "DELETE FROM audit_log WHERE false",
        "TRUNCATE audit_log",
    )
    for statement in statements:
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            sql(url, statement)
    assert sql(url, "SELECT who FROM audit_log") == [("x",)]


def test_versions_count_changes_and_nothing_else(url: str) -> None:
    """A row's version rises with each change of it, stays at a change to what it was, and a last use is no change."""
    versions: LiteralString = "SELECT (SELECT version FROM organizations), (SELECT version FROM api_keys)"
    [(organization, key)] = sql(url, versions)
    sql(url, "UPDATE organizations SET name = name")
    sql(url, "UPDATE api_keys SET last_used_at = now()")
    assert sql(url, versions) == [(organization, key)]
    sql(url, "UPDATE organizations SET name = 'Other'")
    sql(url, "UPDATE api_keys SET scopes = '{read}'")
    assert sql(url, versions) == [(organization + 1, key + 1)]


def test_every_column_of_a_key_but_its_last_use_is_announced(database_url: str) -> None:
    """A column that a later migration adds cannot be forgotten in the trigger that notices changes."""
    columns = sql(database_url, "SELECT column_name FROM information_schema.columns WHERE table_name = 'api_keys'")
    noticed = sql(
        database_url,
        "SELECT event_object_column FROM information_schema.triggered_update_columns "
        "WHERE trigger_name = 'api_keys_version'",
    )
    assert set(columns) - set(noticed) == {("last_used_at",), ("updated_at",), ("version",)}


def test_a_mass_update_is_one_change(url: str) -> None:
    """A statement that touches more than a thousand keys is announced as everything, in one row."""
    sql(
        url,
        "INSERT INTO api_keys (organization_id, name, env, prefix, key_digest) "
        "SELECT %s, 'n', 'test', 'sk_test_0000', encode(sha256(i::text::bytea), 'hex') FROM generate_series(1, 1001) i",
        ACME,
    )
    changes: LiteralString = "SELECT kind, count(*)::int FROM changes WHERE id > %s GROUP BY kind"
    [(before,)] = sql(url, "SELECT max(id) FROM changes")
    sql(url, "UPDATE api_keys SET name = 'm'")
    assert sql(url, changes, before) == [("all", 1)]
    [(before,)] = sql(url, "SELECT max(id) FROM changes")
    sql(url, "UPDATE api_keys SET name = 'o' WHERE id IN (SELECT id FROM api_keys LIMIT 1000)")
    assert sql(url, changes, before) == [("key", 1000)]


def test_no_extension_is_needed(new_database: Callable[..., str]) -> None:
    """Where nobody may install an extension the schema is complete all the same, but for the index of name parts."""
    url = new_database(migrated=False)
    role = f"poor_{urlsplit(url).path.lstrip('/')}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO {role}")
        assert migrate(url.replace("postgres:@", f"{role}@")) == [file.name for file in available()]
        assert sql(url, "SELECT extname FROM pg_extension") == [("plpgsql",)]
        assert sql(url, "SELECT indexname FROM pg_indexes WHERE indexname = 'organizations_by_name'") == []
        add_organization(url)
        assert sql(url, "SELECT name FROM organizations WHERE lower(name) LIKE %s", "%cme%") == [("Acme",)]
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
