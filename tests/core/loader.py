"""A database in memory that answers when the test says so: seeing a row and returning it are two moments."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.core.data.database import StoreUnavailable
from app.core.keys.credential import digest
from app.core.model import PLANS, Credential, Organization
from tests.eventually import eventually


def key(number: int) -> bytes:
    """The key of that number, well formed."""
    return b"sk_test_" + f"{number:032x}".encode()


def credential(number: int, organization: int = 1, tier: str = "basic", expires_at: float | None = None) -> Credential:
    """A credential with an organization object of its own, as each load makes them."""
    owner = Organization(f"org-{organization}", tier, PLANS[tier])
    return Credential(f"key-{number}", owner, expires_at=expires_at)


@dataclass
class Database:
    """Rows by digest. While `is_held`, a load waits for `release` and then answers with what it saw when it began."""

    rows: dict[bytes, Credential] = field(default_factory=dict)
    is_away: bool = False
    is_held: bool = False
    asked: list[bytes] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)

    def hold_key(self, number: int, organization: int = 1, tier: str = "basic") -> bytes:
        """Inserts or changes a key; returns it."""
        self.rows[digest(key(number))] = credential(number, organization, tier)
        return key(number)

    async def load(self, wanted: bytes) -> Credential | None:
        self.asked.append(wanted)
        return (await self._answer([wanted])).get(wanted)

    async def load_many(self, wanted: Sequence[bytes]) -> dict[bytes, Credential]:
        self.batches.append(len(wanted))
        return await self._answer(wanted)

    async def _answer(self, wanted: Sequence[bytes]) -> dict[bytes, Credential]:
        seen = {digest: self.rows[digest] for digest in wanted if digest in self.rows}
        if self.is_held:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        if self.is_away:
            raise StoreUnavailable("away")
        return seen

    async def wait_for_loads(self, count: int) -> None:
        """Until `count` loads wait to be released; fails after 5 s."""
        await eventually(lambda: len(self._waiting) >= count)

    def release(self) -> None:
        """Lets every waiting load return what it saw."""
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)
        self._waiting.clear()
