"""Random histories of changes, loads, outages and requests against a KeyRing, judged by a model too simple to be wrong.

Each key and each organization has a list of its states; a state is a position in it. Applying a change raises the floor
of what it names to the position that the database had by then; whatever the ring hands out must not lie below a floor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from app.core.data.database import StoreUnavailable
from app.core.errors import AuthenticationUnavailable
from app.core.keys.credential import digest
from app.core.keys.keyring import UNKNOWN, Found, KeyRing
from app.core.keys.lookups import Lookups
from app.core.model import Change, Credential, Limits, Organization
from tests.core.loader import key

KEYS = 3
ORGANIZATIONS = 2
numbers = st.integers(0, KEYS - 1)
organization_numbers = st.integers(0, ORGANIZATIONS - 1)
choices = st.integers(0, 3)
Rows = dict[bytes, Credential]


class World:
    """The truth: per key whether it exists in each of its states, per organization how often it changed."""

    def __init__(self) -> None:
        self.keys: list[list[bool]] = [[number % 2 == 0] for number in range(KEYS)]
        self.organizations = [0] * ORGANIZATIONS

    def credential(self, number: int) -> Credential | None:
        states, owner = self.keys[number], number % ORGANIZATIONS
        if not states[-1]:
            return None
        organization = Organization(f"org-{owner}", "basic", Limits(1 + self.organizations[owner], 1, 0))
        return Credential(f"key-{number}", organization, expires_at=float(len(states) - 1))

    def rows(self, wanted: Sequence[bytes]) -> Rows:
        every = {digest(key(number)): self.credential(number) for number in range(KEYS)}
        return {one: found for one in wanted if (found := every.get(one)) is not None}


class KeyRingHistories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.key_floor = [0] * KEYS
        self.organization_floor = [0] * ORGANIZATIONS
        self.told_floors = [0] * KEYS, [0] * ORGANIZATIONS
        self.untold: list[Change] = []
        self.loads: list[tuple[Sequence[bytes], Rows | None, asyncio.Future[Rows]]] = []
        self.now = 0.0
        self.had_outage = False
        self.tasks: list[asyncio.Task[object]] = []
        self.loop = asyncio.new_event_loop()
        self.ring = KeyRing(
            self.loader(), self.load_many, {}, 900, clock=lambda: self.now, keys_max=2, unknown_max=2, unknown_seconds=5
        )

    # --- the database: a load is asked, sees its snapshot, and answers, at three moments ---

    async def load_many(self, wanted: Sequence[bytes]) -> Rows:
        answer: asyncio.Future[Rows] = self.loop.create_future()
        self.loads.append((wanted, None, answer))
        return await answer

    async def load(self, wanted: bytes) -> Credential | None:
        return (await self.load_many([wanted])).get(wanted)

    def loader(self) -> Callable[[bytes], Awaitable[Credential | None]]:
        return self.load

    @precondition(lambda self: self.loads)
    @rule(choice=choices)
    def load_sees(self, choice: int) -> None:
        wanted, seen, answer = self.loads[choice % len(self.loads)]
        self.loads[choice % len(self.loads)] = (wanted, self.world.rows(wanted) if seen is None else seen, answer)

    @precondition(lambda self: self.loads)
    @rule(choice=choices)
    def load_answers(self, choice: int) -> None:
        wanted, seen, answer = self.loads.pop(choice % len(self.loads))
        if not answer.done():  # a refresh that was given up
            answer.set_result(self.world.rows(wanted) if seen is None else seen)
        self.turn()

    @precondition(lambda self: self.loads)
    @rule(choice=choices)
    def load_fails(self, choice: int) -> None:
        _, _, answer = self.loads.pop(choice % len(self.loads))
        if not answer.done():
            self.had_outage = True
            self.key_floor, self.organization_floor = self.told_floors  # an earlier flush binds nobody any more
            answer.set_exception(StoreUnavailable("away"))
        self.turn()

    # --- changes: committed first, told later, more than once perhaps ---

    @rule(number=numbers, exists=st.booleans())
    def change_key(self, number: int, exists: bool) -> None:
        self.world.keys[number].append(exists)
        self.untold.append(Change("key", f"key-{number}"))

    @rule(number=organization_numbers)
    def change_organization(self, number: int) -> None:
        self.world.organizations[number] += 1
        self.untold.append(Change("organization", f"org-{number}"))

    @precondition(lambda self: self.untold)
    @rule(count=st.integers(1, 3), again=st.booleans())
    def tell(self, count: int, again: bool) -> None:
        told = self.untold[:count]
        if not again:
            del self.untold[:count]
        self.ring.apply(told)
        for change in told:
            number = int(change.id.rpartition("-")[2])
            if change.kind == "key":
                self.key_floor[number] = self.told_floors[0][number] = len(self.world.keys[number]) - 1
            else:
                self.organization_floor[number] = self.told_floors[1][number] = self.world.organizations[number]

    @rule()
    def flush(self) -> None:
        self.ring.apply([Change("all")])
        if not self.had_outage:  # with one, old but never changed answers are what keeps known keys working
            self.key_floor = [len(states) - 1 for states in self.world.keys]
            self.organization_floor = list(self.world.organizations)

    # --- the callers ---

    @rule(number=numbers)
    def find(self, number: int) -> None:
        self.judge(number, self.ring.find(key(number)))

    @rule(number=numbers)
    def fetch(self, number: int) -> None:
        async def request() -> None:
            try:
                found = await self.ring.fetch(key(number))
            except AuthenticationUnavailable:
                return
            self.judge(number, found)

        self.tasks.append(self.loop.create_task(request()))
        self.turn()

    @rule(number=numbers)
    def read(self, number: int) -> None:
        """A request and a database that answers at once: the usual case, and what fills the memory."""
        self.fetch(number)
        while self.loads:
            self.load_answers(0)
        self.find(number)

    @precondition(lambda self: self.tasks)
    @rule(choice=choices)
    def give_up(self, choice: int) -> None:
        self.tasks[choice % len(self.tasks)].cancel()
        self.turn()

    @rule()
    def refresh(self) -> None:
        self.tasks.append(self.loop.create_task(self.ring.refresh()))
        self.turn()

    @rule(seconds=st.sampled_from([0.5, 2.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    # --- the judge ---

    def judge(self, number: int, found: Found | None) -> None:
        states, floor = self.world.keys[number], self.key_floor[number]
        if found is None:
            return
        if found is UNKNOWN:
            assert not all(states[floor:]), "called unknown although it existed ever since its last applied change"
            return
        assert isinstance(found, Credential)
        assert found.expires_at is not None
        assert found.expires_at >= floor, "older than the key's last applied change"
        assert states[int(found.expires_at)], "a state in which the key did not exist"
        version = found.organization.limits.per_minute - 1
        assert version >= self.organization_floor[number % ORGANIZATIONS], "older than the organization's last change"

    def turn(self, times: int = 12) -> None:
        """Lets everything happen that can happen without the database; what a task asserted is raised here."""

        async def pause() -> None:
            for _ in range(times):
                await asyncio.sleep(0)

        self.loop.run_until_complete(pause())
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.remove(task)
            if not task.cancelled() and not isinstance(task.exception(), StoreUnavailable):
                task.result()

    def settle(self) -> None:
        for _ in range(100):
            self.turn(300)
            if not self.tasks and not self.loads:
                return
            while self.loads:
                self.load_answers(0)
        raise AssertionError("something never ends")

    def teardown(self) -> None:
        """In the end, everything told and the database back, every request ends and gets exactly the present state."""
        try:
            self.settle()
            self.tell(len(self.untold), again=False)
            for number in range(KEYS):
                self.now += 10
                task = self.loop.create_task(self.ring.fetch(key(number)))
                while not task.done():
                    self.settle()
                assert task.result() == (self.world.credential(number) or UNKNOWN)
            assert len(self.ring) <= 2
        finally:
            for pending in asyncio.all_tasks(self.loop):
                pending.cancel()
            self.turn()
            self.loop.close()


class SharedLookupHistories(KeyRingHistories):
    """The same, when keys that are asked for at once share a load, as in a gateway."""

    def loader(self) -> Callable[[bytes], Awaitable[Credential | None]]:
        return Lookups(self.load_many, wait_seconds=900).load


TestKeyRingHistories = KeyRingHistories.TestCase
TestSharedLookupHistories = SharedLookupHistories.TestCase
TestKeyRingHistories.settings = TestSharedLookupHistories.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    phases=(Phase.reuse, Phase.generate),  # making a found history short takes minutes: for a person, not for the suite
)
