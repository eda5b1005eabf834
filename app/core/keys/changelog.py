"""The latest changes, numbered, so that a load can tell whether what it read changed while it was under way. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from app.core.model import Change, Credential

THINGS_MAX: Final = 4096
"""Things remembered one by one. Anything older only makes a load repeat that need not have been."""


class ChangeLog:
    """`position` is the number of changes so far; a load notes it when it begins and asks `outranks` when it ends."""

    __slots__ = ("_all", "_forgotten", "_key", "_latest", "_things_max", "position")

    def __init__(self, things_max: int = THINGS_MAX) -> None:
        self.position = 0
        self._things_max = things_max
        self._latest: OrderedDict[str, int] = (
            OrderedDict()
        )  # keys' and organizations' ids: both UUIDs, so they share it
        self._key = 0
        self._all = 0
        self._forgotten = 0

    def note(self, change: Change) -> None:
        """One more change, the newest."""
        self.position += 1
        if change.kind == "all":
            self._all = self.position
            return
        if change.kind == "key":
            self._key = self.position
        self._latest[change.id] = self.position
        self._latest.move_to_end(change.id)
        if len(self._latest) > self._things_max:
            _, self._forgotten = self._latest.popitem(last=False)

    def outranks(self, began: int, credential: Credential | None) -> bool:
        """Whether a change after position `began` may concern `credential`, so that it must be read again.

        None stands for a key that was not found: any changed key may be the one that was then created.
        """
        if began == self.position:
            return False
        if began < max(self._all, self._forgotten):
            return True
        if credential is None:
            return began < self._key
        return began < max(
            self._latest.get(credential.key_id or "", 0), self._latest.get(credential.organization.id, 0)
        )
