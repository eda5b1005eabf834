from __future__ import annotations

import pytest

from app.core.data.database import Database
from app.core.data.store import Store
from app.core.keys.credential import digest, is_well_formed, prefix
from tests.tenants import sql
from tools import population


async def test_numbered_keys_are_in_the_database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filled database knows each numbered key by its digest, the keys spread evenly, in however many steps."""
    monkeypatch.setattr(population, "ROWS_MAX", 7)
    async with Database(database_url, name="test") as database:
        steps = [rows async for rows in population.fill(database, keys=30, organizations=10)]
    assert (sum(steps), max(steps)) == (40, 7)
    keys = [population.key(number) for number in range(30)]
    assert all(is_well_formed(key) for key in keys)
    async with Store(database_url, name="test") as store:
        found = await store.credentials_by_digests([digest(key) for key in keys])
    assert len(found) == 30
    assert len({credential.organization.id for credential in found.values()}) == 10
    assert {credential.organization.limits.burst for credential in found.values()} == {0}
    assert sql(database_url, "SELECT count(*) FROM api_keys WHERE prefix = %s", prefix(keys[3].decode())) == [(1,)]
