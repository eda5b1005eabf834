"""Rows to test with, written with plain SQL: what another program, or a person in psql, might have written."""

from __future__ import annotations

import hashlib
from typing import Any, LiteralString

import psycopg

ACME = "00000000-0000-0000-0000-00000000000a"


def sql(url: str, statement: LiteralString, *values: Any) -> list[tuple[Any, ...]]:
    """Runs one statement by itself and returns its rows, if it has any."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def key_digest(number: int) -> bytes:
    """The digest of the key that `add_key` inserts for this number."""
    return hashlib.sha256(str(number).encode()).digest()


def add_organization(url: str, organization_id: str = ACME, tier: str = "basic", *, active: bool = True) -> str:
    """Returns its id."""
    statement: LiteralString = "INSERT INTO organizations (id, name, tier, active) VALUES (%s, 'Acme', %s, %s)"
    sql(url, statement, organization_id, tier, active)
    return organization_id


def add_key(url: str, number: int = 1, organization_id: str = ACME) -> str:
    """A key without an expiry. Returns its id."""
    statement: LiteralString = """
        INSERT INTO api_keys (organization_id, name, env, prefix, key_digest)
        VALUES (%s, 'a key', 'test', 'sk_test_0000', %s) RETURNING id::text
    """
    return str(sql(url, statement, organization_id, key_digest(number).hex())[0][0])
