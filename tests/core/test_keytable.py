from __future__ import annotations

from app.core.keys.keytable import SHARDS, KeyTable
from app.core.model import PLANS, Credential, Organization


def organization(number: int, tier: str = "basic") -> Organization:
    return Organization(f"org-{number}", tier, PLANS[tier])


def digest(number: int, shard: int = 0) -> bytes:
    return bytes([shard]) + number.to_bytes(31, "big")


def sweep_all(table: KeyTable) -> tuple[set[bytes], set[bytes]]:
    swept = [table.sweep(shard) for shard in range(SHARDS)]
    return {d for used, _ in swept for d in used}, {d for _, idle in swept for d in idle}


def test_one_organization_object() -> None:
    """Keys of one organization share one object, however many objects they were loaded with."""
    table = KeyTable(100)
    found = [table.put(digest(n), Credential(f"key-{n}", organization(1))) for n in range(5)]
    assert len({id(credential.organization) for credential in found}) == 1
    assert table.find(digest(3)) is found[3]
    assert table.organizations == 1


def test_organization_changed() -> None:
    """Forgetting an organization outdates every key of it, and only those, also when it comes back unchanged."""
    table = KeyTable(100)
    for n in range(4):
        table.put(digest(n), Credential(f"key-{n}", organization(n % 2)))
    table.forget_organization("org-1")
    assert [table.find(digest(n)) is None for n in range(4)] == [False, True, False, True]
    assert table.find_doubtful(digest(1)) is None
    table.put(digest(1), Credential("key-1", organization(1)))
    assert table.find(digest(1)) is not None
    assert table.find(digest(3)) is None, "read before the organization changed"
    table.put(digest(3), Credential("key-3", organization(1)))
    assert table.find(digest(3)) is not None


def test_organization_read_differently() -> None:
    """A newer state of an organization, met through one key, outdates its other keys at once."""
    table = KeyTable(100)
    table.put(digest(1), Credential("key-1", organization(1)))
    table.put(digest(2), Credential("key-2", organization(1, "premium")))
    assert table.find(digest(1)) is None
    assert table.find(digest(2)) is not None


def test_doubt() -> None:
    """After doubt a key is found only as doubtful until it is put again, and then it is the same object."""
    table = KeyTable(100)
    credential = table.put(digest(1), Credential("key-1", organization(1)))
    table.doubt_all()
    assert table.find(digest(1)) is None
    assert table.find_doubtful(digest(1)) is credential
    assert table.put(digest(1), Credential("key-1", organization(1))) is credential
    assert table.find(digest(1)) is credential


def test_forgotten_key() -> None:
    """A changed key is gone, its organization with its last key."""
    table = KeyTable(100)
    table.put(digest(1), Credential("key-1", organization(1)))
    table.put(digest(2), Credential("key-2", organization(1)))
    table.forget_key("key-1")
    table.forget_key("key-1")
    table.forget_key("never seen")
    assert table.find_doubtful(digest(1)) is None
    assert (len(table), table.organizations) == (1, 1)
    table.forget_key("key-2")
    assert (len(table), table.organizations) == (0, 0)


def test_key_under_another_digest() -> None:
    """A key that is put under another digest is not found under the old one; a digest can pass to another key."""
    table = KeyTable(100)
    table.put(digest(1), Credential("key-1", organization(1)))
    table.put(digest(2), Credential("key-1", organization(1)))
    assert table.find(digest(1)) is None
    assert len(table) == 1
    table.put(digest(2), Credential("key-2", organization(2)))
    table.forget_key("key-1")
    assert table.find(digest(2)) == Credential("key-2", organization(2))
    assert (len(table), table.organizations) == (1, 1)


def test_bounded() -> None:
    """The table never exceeds its room, and an unused key makes room before a used one."""
    table = KeyTable(4)
    for n in range(4):
        table.put(digest(n), Credential(f"key-{n}", organization(n)))
    sweep_all(table)
    for n in (0, 1, 3):
        assert table.find(digest(n)) is not None
    table.put(digest(9), Credential("key-9", organization(9)))
    assert table.find(digest(2)) is None
    assert table.find(digest(0)) is not None
    for n in range(100):
        table.put(digest(n, shard=n), Credential(f"many-{n}", organization(n)))
        assert (len(table), table.organizations <= 4) == (4, True)


def test_sweep() -> None:
    """A sweep tells the keys that were asked for since the last one from those that were not."""
    table = KeyTable(1000)
    for n in range(300):
        table.put(digest(n, shard=n % SHARDS), Credential(f"key-{n}", organization(1)))
    used, idle = sweep_all(table)
    assert (len(used), idle) == (300, set())
    table.find(digest(7, shard=7))
    assert table.was_used(digest(7, shard=7))
    assert not table.was_used(digest(8, shard=8))
    used, idle = sweep_all(table)
    assert (used, len(idle)) == ({digest(7, shard=7)}, 299)
