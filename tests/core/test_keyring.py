from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.core.errors import AuthenticationUnavailable
from app.core.keys.credential import digest
from app.core.keys.holding import Holding
from app.core.keys.keyring import AWAY_PAUSE_SECONDS, LOADS_MAX, MET_SECONDS, UNKNOWN, KeyRing
from app.core.model import Change, Credential
from tests.core.loader import Database, credential, key
from tests.eventually import eventually


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
async def ring(database: Database, clock: Clock) -> AsyncIterator[KeyRing]:
    async with KeyRing(database.load, database.load_many, {}, 900, clock=clock) as ring:
        yield ring


async def test_memory_after_one_load(ring: KeyRing, database: Database) -> None:
    """A key is asked for once and then found in memory, with its organization shared among that one's keys."""
    first, second = database.hold_key(1), database.hold_key(2)
    assert ring.find(first) is None
    found = await ring.fetch(first)
    other = await ring.fetch(second)
    assert found == credential(1)
    assert ring.find(first) is found
    assert isinstance(found, Credential)
    assert isinstance(other, Credential)
    assert found.organization is other.organization
    assert (len(ring), len(database.asked)) == (2, 2)


async def test_malformed_asks_nobody(ring: KeyRing, database: Database) -> None:
    """A token that the database cannot hold is unknown without a question, and then remembered like any other."""
    for token in (b"", b"x" * 5000, b"sk_test_" + b"Z" * 32, b"\xff\x00"):
        assert ring.find(token) is None
        assert await ring.fetch(token) is UNKNOWN
        assert ring.find(token) is UNKNOWN
    assert database.asked == []
    assert len(ring) == 0


async def test_static_keys_come_first(database: Database) -> None:
    """A static key of any shape is found before the database is asked, and no change, flush or outage touches it."""
    static = credential(7)
    database.is_away = True
    async with KeyRing(database.load, database.load_many, {digest(b"sk_test_abc123"): static}, 900) as ring:
        ring.apply([Change("key", "key-7"), Change("organization", "org-1"), Change("all")])
        assert ring.find(b"sk_test_abc123") is static
        assert await ring.fetch(b"sk_test_abc123") is static
    assert database.asked == []


class Incomparable(bytes):
    """A key that fails whoever compares it."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("a key was compared by its bytes")

    __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __eq__

    def __hash__(self) -> int:
        raise AssertionError("a key was looked up by its bytes")


async def test_no_key_is_compared(database: Database) -> None:
    """Static, stored, unknown and malformed keys are told apart by digests alone: time tells nothing about a key."""
    async with KeyRing(database.load, database.load_many, {digest(b"static-key"): credential(7)}, 900) as ring:
        database.hold_key(1)
        for text, found in (
            (b"static-key", credential(7)),
            (key(1), credential(1)),
            (key(2), UNKNOWN),
            (b"x", UNKNOWN),
        ):
            for _ in range(2):
                assert await ring.fetch(Incomparable(text)) == found
            assert ring.find(Incomparable(text)) == found


async def test_without_a_database() -> None:
    """Without a database, whatever is not static is unknown at once."""
    async with KeyRing(None, None, {digest(b"static-key"): credential(1)}, 900) as ring:
        assert ring.find(b"static-key") == credential(1)
        assert await ring.fetch(key(1)) is UNKNOWN
        assert ring.find(key(1)) is UNKNOWN
        assert (await ring.refresh()).refreshed == 0


async def test_unknown_keys_are_remembered_briefly(ring: KeyRing, database: Database, clock: Clock) -> None:
    """An unknown key is asked for once in ten seconds."""
    assert await ring.fetch(key(1)) is UNKNOWN
    assert ring.find(key(1)) is UNKNOWN
    clock.now += 9.9
    assert await ring.fetch(key(1)) is UNKNOWN
    assert len(database.asked) == 1
    clock.now += 0.2
    assert ring.find(key(1)) is None


async def test_a_created_key_works_at_once(ring: KeyRing, database: Database) -> None:
    """A key that was tried before it existed works as soon as its creation is applied."""
    assert await ring.fetch(key(1)) is UNKNOWN
    database.hold_key(1)
    ring.apply([Change("key", "key-1")])
    assert ring.find(key(1)) is None
    assert await ring.fetch(key(1)) == credential(1)


async def test_met_keys_stay_met(ring: KeyRing, database: Database, clock: Clock) -> None:
    """A key that was somebody's is told from a guess while memory cannot say whose: in doubt, changed, dropped."""
    assert not ring.has_met(key(1))
    await ring.fetch(database.hold_key(1))
    for change in (Change("all"), Change("organization", "org-1"), Change("key", "key-1")):
        ring.apply([change])
        assert ring.find(key(1)) is None
        assert ring.has_met(key(1))
    await ring.fetch(key(2))
    assert not ring.has_met(key(2))
    clock.now += MET_SECONDS
    assert not ring.has_met(key(1))


async def test_who_joins_a_read(ring: KeyRing, database: Database) -> None:
    """While a key is being read, whoever else brings it only joins."""
    database.is_held = True
    assert not ring.is_reading(key(1))
    reading = asyncio.create_task(ring.fetch(key(1)))
    await eventually(lambda: database.asked)
    assert (ring.is_reading(key(1)), ring.is_reading(key(2))) == (True, False)
    database.release()
    assert await reading is UNKNOWN
    assert not ring.is_reading(key(1))


async def test_memory_is_bounded(database: Database) -> None:
    """Neither known nor unknown keys exceed their room."""
    async with KeyRing(database.load, database.load_many, {}, 900, keys_max=10, unknown_max=10) as ring:
        for number in range(100):
            await ring.fetch(database.hold_key(number))
            assert await ring.fetch(key(1000 + number)) is UNKNOWN
        assert len(ring) == 10
        assert sum(ring.find(key(1000 + number)) is UNKNOWN for number in range(100)) == 10


async def test_single_flight(ring: KeyRing, database: Database) -> None:
    """However many requests wait for a key, the database is asked once, and a waiter that gives up harms no other."""
    database.is_held = True
    bearer = database.hold_key(1)
    waiters = [asyncio.create_task(ring.fetch(bearer)) for _ in range(100)]
    await database.wait_for_loads(1)
    waiters[0].cancel()
    waiters[50].cancel()
    await asyncio.sleep(0)
    database.release()
    found = await asyncio.gather(*waiters, return_exceptions=True)
    assert sum(isinstance(one, asyncio.CancelledError) for one in found) == 2
    assert sum(one == credential(1) for one in found) == 98
    assert len(database.asked) == 1


async def test_a_load_outlives_its_waiters(ring: KeyRing, database: Database) -> None:
    """When every waiter is gone the answer is still remembered for the next request."""
    database.is_held = True
    waiter = asyncio.create_task(ring.fetch(database.hold_key(1)))
    await database.wait_for_loads(1)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    database.release()
    await eventually(lambda: ring.find(key(1)) == credential(1))


async def test_a_failed_load(ring: KeyRing, database: Database, clock: Clock) -> None:
    """With the database away each waiter gets a 503 of its own; the next second's ask in vain, without asking it."""
    database.is_held = database.is_away = True
    bearer = database.hold_key(1)
    waiters = [asyncio.create_task(ring.fetch(bearer)) for _ in range(5)]
    await database.wait_for_loads(1)
    database.release()
    failures = await asyncio.gather(*waiters, return_exceptions=True)
    assert all(isinstance(failure, AuthenticationUnavailable) for failure in failures)
    assert len({id(failure) for failure in failures}) == 5
    with pytest.raises(AuthenticationUnavailable):
        await asyncio.wait_for(ring.fetch(key(2)), 0.5)  # the load would be held
    assert len(database.asked) == 1
    database.is_held = database.is_away = False
    clock.now += AWAY_PAUSE_SECONDS
    assert await ring.fetch(bearer) == credential(1)


async def test_one_attempt_a_second(ring: KeyRing, database: Database, clock: Clock) -> None:
    """With the database away one request waits for it, others with its key join it, the rest is refused at once."""
    database.is_away = True
    with pytest.raises(AuthenticationUnavailable):
        await ring.fetch(key(1))
    clock.now += AWAY_PAUSE_SECONDS
    database.is_held = True
    attempts = [asyncio.create_task(ring.fetch(database.hold_key(2))) for _ in range(3)]
    await database.wait_for_loads(1)
    with pytest.raises(AuthenticationUnavailable):
        await ring.fetch(key(1))
    database.is_held = database.is_away = False
    database.release()
    assert await asyncio.gather(*attempts) == [credential(2)] * 3
    assert await ring.fetch(key(1)) is UNKNOWN, "one success ends it"


async def test_the_return_is_no_secret(database: Database) -> None:
    """A database that has answered somebody else meanwhile is asked again at once."""
    answered: list[bool] = []
    async with KeyRing(database.load, database.load_many, {}, 900, is_back=lambda: bool(answered)) as ring:
        database.is_away = True
        with pytest.raises(AuthenticationUnavailable):
            await ring.fetch(database.hold_key(1))
        database.is_away = False
        with pytest.raises(AuthenticationUnavailable):
            await ring.fetch(key(1))
        answered.append(True)
        assert await ring.fetch(key(1)) == credential(1)


async def test_loads_are_bounded(ring: KeyRing, database: Database) -> None:
    """Past a thousand different keys at once the next one is told that authentication is unavailable, at once."""
    database.is_held = True
    waiters = [asyncio.create_task(ring.fetch(key(number))) for number in range(LOADS_MAX)]
    await database.wait_for_loads(LOADS_MAX)
    with pytest.raises(AuthenticationUnavailable):
        await ring.fetch(key(LOADS_MAX))
    database.release()
    assert set(await asyncio.gather(*waiters)) == {UNKNOWN}
    database.is_held = False
    assert await ring.fetch(key(LOADS_MAX)) is UNKNOWN


@pytest.mark.parametrize("change", [Change("key", "key-1"), Change("organization", "org-1"), Change("all")])
async def test_a_change_outranks_the_load_under_way(ring: KeyRing, database: Database, change: Change) -> None:
    """What a load saw before a change was applied is neither remembered nor handed out: the key is read again."""
    database.is_held = True
    waiters = [asyncio.create_task(ring.fetch(database.hold_key(1))) for _ in range(3)]
    await database.wait_for_loads(1)
    database.hold_key(1, tier="premium")
    ring.apply([change])
    late = asyncio.create_task(ring.fetch(key(1)))
    database.is_held = False
    database.release()
    for found in await asyncio.gather(*waiters, late):
        assert found == credential(1, tier="premium")
    assert ring.find(key(1)) == credential(1, tier="premium")
    assert len(database.asked) == 2


async def test_a_change_between_answer_and_waiter(ring: KeyRing, database: Database) -> None:
    """A change applied when the load has ended but its waiter has not run yet still reaches the waiter."""
    database.is_held = True
    waiter = asyncio.create_task(ring.fetch(database.hold_key(1)))
    await database.wait_for_loads(1)
    database.is_held = False
    database.release()
    while ring.find(key(1)) is None:  # noqa: ASYNC110  the very turn of the loop matters
        await asyncio.sleep(0)
    assert not waiter.done()
    database.hold_key(1, tier="premium")
    ring.apply([Change("key", "key-1")])
    assert await waiter == credential(1, tier="premium")


async def test_other_changes_cost_nothing(ring: KeyRing, database: Database) -> None:
    """A change of another key or organization neither repeats a load nor empties memory."""
    database.is_held = True
    waiter = asyncio.create_task(ring.fetch(database.hold_key(1)))
    await database.wait_for_loads(1)
    others = [Change("key", "key-2"), Change("organization", "org-2")]
    ring.apply(others)
    database.release()
    assert await waiter == credential(1)
    ring.apply(others)
    assert ring.find(key(1)) == credential(1)
    assert len(database.asked) == 1


async def test_a_creation_outranks_not_finding(ring: KeyRing, database: Database) -> None:
    """A load that saw no such key, while the key was being created, is repeated."""
    database.is_held = True
    waiter = asyncio.create_task(ring.fetch(key(1)))
    await database.wait_for_loads(1)
    database.hold_key(1)
    ring.apply([Change("key", "key-1")])
    database.is_held = False
    database.release()
    assert await waiter == credential(1)


async def test_endless_changes_end(ring: KeyRing, database: Database) -> None:
    """A key that changes during every read of it ends in a 503, not in an endless loop nor in an old answer."""
    database.is_held = True
    waiter = asyncio.create_task(ring.fetch(database.hold_key(1)))
    while not waiter.done():
        ring.apply([Change("key", "key-1")])
        database.release()
        await asyncio.sleep(0)
    with pytest.raises(AuthenticationUnavailable):
        await waiter


@pytest.mark.parametrize("change", [Change("key", "key-1"), Change("organization", "org-1")])
async def test_a_changed_key_and_no_database(ring: KeyRing, database: Database, change: Change) -> None:
    """What is known to have changed is not served from memory, also when the database is away."""
    await ring.fetch(database.hold_key(1))
    await ring.fetch(database.hold_key(2, organization=2))
    database.is_away = True
    ring.apply([change])
    assert ring.find(key(1)) is None
    with pytest.raises(AuthenticationUnavailable):
        await ring.fetch(key(1))
    assert ring.find(key(2)) == credential(2, organization=2)


async def test_a_flush_reads_again(ring: KeyRing, database: Database) -> None:
    """After a flush each key is read from the database before its next use."""
    await ring.fetch(database.hold_key(1))
    database.hold_key(1, tier="premium")
    ring.apply([Change("all")])
    assert ring.find(key(1)) is None
    assert await ring.fetch(key(1)) == credential(1, tier="premium")


async def test_a_flush_is_no_outage(ring: KeyRing, database: Database, clock: Clock) -> None:
    """After a flush with the database away, known keys work; one request a second tries, and its return is noticed."""
    for number in range(3):
        await ring.fetch(database.hold_key(number))
    database.is_away = True
    database.asked.clear()
    ring.apply([Change("all")])
    assert await ring.fetch(key(0)) == credential(0)
    assert len(database.asked) == 1
    assert ring.find(key(1)) == credential(1), "known to be away: nobody waits"
    with pytest.raises(AuthenticationUnavailable):
        await ring.fetch(key(99))
    clock.now += AWAY_PAUSE_SECONDS + 0.1
    database.is_held = True
    database.hold_key(2, tier="premium", organization=2)
    assert ring.find(key(1)) is None
    attempt = asyncio.create_task(ring.fetch(key(1)))
    await database.wait_for_loads(1)
    assert ring.find(key(2)) == credential(2), "one attempt at a time"
    database.is_away = database.is_held = False
    database.release()
    assert await attempt == credential(1)
    assert ring.find(key(2)) is None
    assert await ring.fetch(key(2)) == credential(2, tier="premium", organization=2)


async def test_what_memory_holds(database: Database) -> None:
    """Whoever asks why is told what memory says of a key, and how far it is relied on, without it counting as a use."""
    known, stranger = database.hold_key(1), key(2)
    static = credential(7)
    async with KeyRing(database.load, database.load_many, {digest(b"sk_test_abc123"): static}, 900) as ring:
        assert ring.holding(digest(b"sk_test_abc123")) == Holding("static", static)
        assert ring.holding(digest(known)) == Holding("absent")
        await ring.fetch(known)
        await ring.fetch(stranger)
        assert ring.holding(digest(known)) == Holding("cached", credential(1))
        assert ring.holding(digest(stranger)) == Holding("unknown")
        ring.apply([Change("all")])
        assert ring.holding(digest(known)) == Holding("in doubt", credential(1))
        ring.apply([Change("key", "key-1")])
        assert ring.holding(digest(known)) == Holding("absent")
        assert len(database.asked) == 2


async def test_looking_is_no_use(ring: KeyRing, database: Database) -> None:
    """A key that somebody only looked at still leaves memory when nobody has used it for an interval."""
    known = database.hold_key(1)
    await ring.fetch(known)
    await ring.refresh()
    ring.holding(digest(known))
    await ring.refresh()
    assert ring.holding(digest(known)) == Holding("absent")


async def test_a_deleted_key(ring: KeyRing, database: Database) -> None:
    """A key whose row is gone is unknown after its change, and after a flush."""
    for change in (Change("key", "key-1"), Change("all")):
        await ring.fetch(database.hold_key(1))
        database.rows.clear()
        ring.apply([change])
        assert await ring.fetch(key(1)) is UNKNOWN
        assert ring.find(key(1)) is UNKNOWN
        assert len(ring) == 0
        ring.apply([Change("key", "key-1")])


async def test_leaving_ends_the_loads(database: Database) -> None:
    """Nothing runs on after the ring is left, whatever the database is doing."""
    database.is_held = True
    async with KeyRing(database.load, database.load_many, {}, 900) as ring:
        waiter = asyncio.create_task(ring.fetch(key(1)))
        await database.wait_for_loads(1)
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert asyncio.all_tasks() == {asyncio.current_task()}
