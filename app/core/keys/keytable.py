"""The credentials in memory: which digests are known, and which of them may still be relied on.

Made for a million keys of a hundred thousand organizations in one worker: an organization is one shared object however
many keys it has, and whatever concerns many keys (an organization changed, everything is in doubt) is one assignment,
never a walk. Digests are uniform, so their first byte splits the table in 256 parts: growing, sweeping and evicting
touch one small part at a time and never hold the event loop. Pure.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from app.core.model import Credential, Organization

SHARDS: Final = 256
EVICTION_CANDIDATES: Final = 8


class _Held:
    """One key's place. `epoch`: the table's when the database last said so; `used`: asked for since the last sweep."""

    __slots__ = ("credential", "epoch", "used")

    def __init__(self, credential: Credential, epoch: int) -> None:
        self.credential = credential
        self.epoch = epoch
        self.used = True


def _name(credential: Credential) -> tuple[str | None, str]:
    return credential.key_id, credential.organization.id


class KeyTable:
    """Credentials by digest, at most `keys_max`; beyond that an old and preferably unused one makes room."""

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        self._shards: tuple[dict[bytes, _Held], ...] = tuple({} for _ in range(SHARDS))
        self._digests: dict[str, bytes] = {}  # by key_id: changes name keys so
        self._organizations: dict[str, Organization] = {}
        self._organization_keys: dict[str, int] = {}  # how many keys keep an organization here
        self._epoch = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def organizations(self) -> int:
        """How many organizations are held; never more than keys."""
        return len(self._organization_keys)

    def find(self, digest: bytes) -> Credential | None:
        """The credential, if it can be relied on. Counts as a use."""
        held = self._shards[digest[0]].get(digest)
        if held is None:
            return None
        held.used = True
        return held.credential if self._is_relied_on(held) else None

    def is_relied_on(self, digest: bytes) -> bool:
        """Whether `find` would return a credential; looking does not count as a use."""
        held = self._shards[digest[0]].get(digest)
        return held is not None and self._is_relied_on(held)

    def find_doubtful(self, digest: bytes) -> Credential | None:
        """The credential even if everything was put in doubt since it was read; none that is known to have changed."""
        held = self._shards[digest[0]].get(digest)
        return held.credential if held is not None and self._is_unchanged(held) else None

    def peek(self, digest: bytes) -> Credential | None:
        """What is held, relied on or not, without counting as a use."""
        held = self._shards[digest[0]].get(digest)
        return held.credential if held is not None else None

    def put(self, digest: bytes, credential: Credential) -> Credential:
        """Holds what the database just said; returns it with the shared organization, as `find` will."""
        held = self._shards[digest[0]].get(digest)
        if held is not None and _name(held.credential) == _name(credential):
            held.epoch = self._epoch
            if not (held.credential == credential and self._is_unchanged(held)):  # the same again: no new object
                held.credential = self._with_shared_organization(credential)
            return held.credential
        self.drop(digest)
        self.forget_key(credential.key_id or "")  # the same key under another digest: that one is not valid any more
        self._make_room(digest)
        shared = self._with_shared_organization(credential)
        self._shards[digest[0]][digest] = _Held(shared, self._epoch)
        self._count += 1
        self._organization_keys[shared.organization.id] = self._organization_keys.get(shared.organization.id, 0) + 1
        if shared.key_id is not None:
            self._digests[shared.key_id] = digest
        return shared

    def drop(self, digest: bytes) -> bool:
        """Forgets one key; its organization with its last one. Whether it was there."""
        held = self._shards[digest[0]].pop(digest, None)
        if held is None:
            return False
        self._count -= 1
        self._digests.pop(held.credential.key_id or "", None)
        organization_id = held.credential.organization.id
        self._organization_keys[organization_id] -= 1
        if not self._organization_keys[organization_id]:
            del self._organization_keys[organization_id]
            self._organizations.pop(organization_id, None)
        return True

    def forget_key(self, key_id: str) -> None:
        """The key changed: what is held of it may not be used any more."""
        digest = self._digests.get(key_id)
        if digest is not None:
            self.drop(digest)

    def forget_organization(self, organization_id: str) -> None:
        """The organization changed: no credential that points at the object held until now may be used any more."""
        self._organizations.pop(organization_id, None)

    def doubt_all(self) -> None:
        """Everything held was true once and must be asked for again before it is relied on."""
        self._epoch += 1

    def sweep(self, shard: int) -> tuple[list[bytes], list[bytes]]:
        """The digests of one shard (0 to 255), those used since its last sweep and those not; begins anew for all."""
        used: list[bytes] = []
        idle: list[bytes] = []
        for digest, held in self._shards[shard].items():
            (used if held.used else idle).append(digest)
            held.used = False
        return used, idle

    def was_used(self, digest: bytes) -> bool:
        """Whether it was asked for since its shard's last sweep."""
        held = self._shards[digest[0]].get(digest)
        return held is not None and held.used

    def _is_relied_on(self, held: _Held) -> bool:
        return held.epoch == self._epoch and self._is_unchanged(held)

    def _is_unchanged(self, held: _Held) -> bool:
        organization = held.credential.organization
        return self._organizations.get(organization.id) is organization

    def _with_shared_organization(self, credential: Credential) -> Credential:
        """Equal organizations become one object; a different one replaces it, and so outdates its other keys."""
        organization = credential.organization
        known = self._organizations.get(organization.id)
        if known is organization:
            return credential
        if known != organization:
            self._organizations[organization.id] = organization
            return credential
        return Credential(credential.key_id, known, credential.revoked, credential.expires_at)

    def _make_room(self, digest: bytes) -> None:
        if self._count < self._keys_max:
            return
        shard = self._shards[digest[0]] or next(filter(None, self._shards))
        oldest = list(islice(shard.items(), EVICTION_CANDIDATES))
        self.drop(next((candidate for candidate, held in oldest if not held.used), oldest[0][0]))
