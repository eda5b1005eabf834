"""Which key belongs to whom, answered from memory; the database is asked once for what memory does not hold.

What makes it safe to remember an answer: a change that is applied outranks everything read before it, also what
is being read while it arrives. Nothing read before a change of a key or of its organization is handed out after it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Final, Literal, NamedTuple, Self

from loguru import logger

from app.core.errors import AuthenticationUnavailable
from app.core.keys.changelog import ChangeLog
from app.core.keys.credential import digest as digest_of
from app.core.keys.credential import is_well_formed
from app.core.keys.digest_memory import DigestMemory
from app.core.keys.holding import Holding
from app.core.keys.keytable import KeyTable
from app.core.keys.refresh import LoadMany, RefreshReport, refresh
from app.core.keys.refresher import Refresher
from app.core.model import Change, Credential

LOADS_MAX: Final = 1000
"""Different keys being looked up at once; one more is told that authentication is unavailable."""
LOAD_SECONDS_MAX: Final = 3.0
"""The store has a bound of its own, a second; this one only keeps a broken store from holding a place for ever."""
READS_MAX: Final = 8
"""How often one request reads a key that keeps changing under its hands."""
AWAY_PAUSE_SECONDS: Final = 1.0
"""While the database is away one request in this time tries whether it is back. Meanwhile keys in doubt work from
memory, and those that are not in memory are told so without a wait."""

MET_MAX: Final = 16_384
MET_SECONDS: Final = 86_400.0


class Unknown(Enum):
    """The one value that says: this is nobody's key."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN
Found = Credential | Literal[Unknown.UNKNOWN]


class _Read(NamedTuple):
    """What a load said, and the position of the change log when it began; `error` when it said nothing."""

    credential: Credential | None
    began: int
    error: Exception | None = None


class KeyRing:
    """Keys by digest: the static ones, then the database's, as far as memory holds them. An async context manager.

    `load` and `load_many` ask the database for digests (32 raw bytes) and raise when it does not answer; without them
    (no database configured) every key that is not static is unknown. After a load that failed `is_back` is asked
    whether the database has answered anybody since. Entered, the ring reads what is in memory again every
    `ttl_seconds`. `clock` is monotonic seconds.
    """

    def __init__(
        self,
        load: Callable[[bytes], Awaitable[Credential | None]] | None,
        load_many: LoadMany | None,
        static: Mapping[bytes, Credential],
        ttl_seconds: float,
        *,
        is_back: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        keys_max: int = 1_048_576,
        unknown_max: int = 65_536,
        unknown_seconds: float = 10.0,
    ) -> None:
        self._load = load
        self._load_many = load_many
        self._static = dict(static)
        self._is_back = is_back
        self._clock = clock
        self._table = KeyTable(keys_max)
        self._unknown = DigestMemory(unknown_max, unknown_seconds)
        self._met = DigestMemory(MET_MAX, MET_SECONDS)
        self._log = ChangeLog()
        self._reads: dict[bytes, asyncio.Task[_Read]] = {}
        self._try_again_at: float | None = None  # while the database is away
        self._ttl_seconds = ttl_seconds
        self._refresher = Refresher(self.refresh, ttl_seconds) if load_many is not None else None

    async def __aenter__(self) -> Self:
        if self._refresher is not None:
            await self._refresher.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._refresher is not None:
            await self._refresher.__aexit__()
        reads = list(self._reads.values())
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)

    def __len__(self) -> int:
        """How many of the database's keys are in memory."""
        return len(self._table)

    def find(self, key: bytes) -> Found | None:
        """Whose key this is, from memory alone; None when memory cannot tell (`fetch`)."""
        return self.find_digest(digest_of(key))

    def find_digest(self, digest: bytes) -> Found | None:
        """The same for who has worked out the digest already (32 bytes)."""
        credential = self._static.get(digest) or self._table.find(digest)
        return credential if credential is not None else self._find_otherwise(digest)

    async def fetch(self, key: bytes) -> Found:
        """As `find`, and asks the database at need, once however many wait for the same key.

        Raises AuthenticationUnavailable when the key is not in memory and the database does not answer, or did not a
        moment ago.
        """
        digest = digest_of(key)
        for _ in range(READS_MAX):
            found = self.find(key)
            if found is not None:
                return found
            if self._load is None or not is_well_formed(key):
                self._unknown.add(digest, self._clock())
                return UNKNOWN
            if self._is_away and digest not in self._reads:
                raise AuthenticationUnavailable  # at once: waiting for a database that is away would change nothing
            read = await self._read(digest)
            if read.error is not None:
                return self._fall_back(digest, read.error)
            if not self._log.outranks(read.began, read.credential):
                return read.credential or UNKNOWN
        raise AuthenticationUnavailable

    def has_met(self, key: bytes) -> bool:
        """Whether this was somebody's key lately, though memory cannot tell now (in doubt, changed, long unused): to
        look it up again is no guess."""
        digest = digest_of(key)
        return self._table.peek(digest) is not None or self._met.holds(digest, self._clock())

    def is_reading(self, key: bytes) -> bool:
        """Whether the database is being asked about it now: whoever comes joins, and costs nothing more."""
        return digest_of(key) in self._reads

    def holding(self, digest: bytes) -> Holding:
        """What memory says of the key with this digest (32 bytes), for people who ask why; it counts as no use."""
        if digest in self._static:
            return Holding("static", self._static[digest])
        held = self._table.peek(digest)
        if held is not None and self._table.is_relied_on(digest):
            return Holding("cached", held)
        if self._table.find_doubtful(digest) is not None:
            return Holding("in doubt", held)
        return Holding("unknown" if self._unknown.holds(digest, self._clock()) else "absent")

    def apply(self, changes: Sequence[Change]) -> None:
        """From now on nothing is handed out that was read before these changes.

        After "all" what is in memory is in doubt: it is read again before its next use, but if the database is away it
        still serves, so that a flush cannot become an outage.
        """
        for change in changes:
            self._log.note(change)
            if change.kind == "organization":
                self._table.forget_organization(change.id)
                continue
            self._unknown.clear()  # a new key may have been created
            if change.kind == "key":
                self._table.forget_key(change.id)
            else:
                self._table.doubt_all()

    async def refresh(self) -> RefreshReport:
        """Reads again what was used since the last refresh and drops what was not; raises as `load_many` does."""
        if self._load_many is None:
            return RefreshReport()
        return await refresh(self._table, self._log, self._load_many, self._ttl_seconds)

    def _find_otherwise(self, digest: bytes) -> Found | None:
        if self._unknown.holds(digest, self._clock()):
            return UNKNOWN
        return self._table.find_doubtful(digest) if self._is_away else None

    @property
    def _is_away(self) -> bool:
        return self._try_again_at is not None and self._clock() < self._try_again_at and not self._is_back()

    async def _read(self, digest: bytes) -> _Read:
        """Joins the read of this digest under way, or begins one. A waiter that is cancelled stops nobody else."""
        task = self._reads.get(digest)
        if task is None:
            if len(self._reads) >= LOADS_MAX:
                return _Read(None, 0, AuthenticationUnavailable())
            if self._try_again_at is not None:
                self._try_again_at = self._clock() + AWAY_PAUSE_SECONDS
            task = self._reads[digest] = asyncio.create_task(self._begin_read(digest))
        return await asyncio.shield(task)

    async def _begin_read(self, digest: bytes) -> _Read:
        began = self._log.position
        try:
            async with asyncio.timeout(LOAD_SECONDS_MAX):
                credential = await self._load(digest) if self._load is not None else None
        except Exception as error:  # noqa: BLE001  whatever keeps a key from being checked, its bearer gets a 503
            self._note_away(error)
            return _Read(None, began, error)
        finally:
            del self._reads[digest]
        self._note_back()
        return _Read(self._remember(digest, credential, began), began)

    def _remember(self, digest: bytes, credential: Credential | None, began: int) -> Credential | None:
        if self._log.outranks(began, credential):
            return credential  # every waiter sees the same and reads again
        if credential is not None:
            self._met.add(digest, self._clock())
            return self._table.put(digest, credential)
        self._table.drop(digest)
        self._unknown.add(digest, self._clock())
        return None

    def _fall_back(self, digest: bytes, error: Exception) -> Credential:
        credential = self._table.find_doubtful(digest)
        if credential is None:
            raise AuthenticationUnavailable from error
        return credential

    def _note_away(self, error: Exception) -> None:
        if self._try_again_at is None:
            logger.warning(f"API keys that are not in memory cannot be checked: {type(error).__name__}: {error}")
        self._try_again_at = self._clock() + AWAY_PAUSE_SECONDS

    def _note_back(self) -> None:
        if self._try_again_at is not None:
            logger.info("API keys that are not in memory can be checked again")
        self._try_again_at = None
