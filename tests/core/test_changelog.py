from __future__ import annotations

from app.core.keys.changelog import ChangeLog
from app.core.model import PLANS, Change, Credential, Organization

CREDENTIAL = Credential("key-1", Organization("org-1", "basic", PLANS["basic"]))


def test_own_changes_outrank() -> None:
    """A load is outranked by a later change of its key, of its organization or of everything, and by no other."""
    for change, outranked in [
        (Change("key", "key-1"), True),
        (Change("organization", "org-1"), True),
        (Change("all"), True),
        (Change("key", "key-2"), False),
        (Change("organization", "org-2"), False),
    ]:
        log = ChangeLog()
        log.note(change)
        began = log.position
        assert not log.outranks(began, CREDENTIAL), "a change before the load began does not concern it"
        log.note(change)
        assert log.outranks(began, CREDENTIAL) is outranked, change


def test_nothing_found() -> None:
    """Not having found a key is outranked by any key's change: it may just have been created."""
    log = ChangeLog()
    log.note(Change("organization", "org-1"))
    assert not log.outranks(0, None)
    log.note(Change("key", "key-9"))
    assert log.outranks(0, None)


def test_bounded() -> None:
    """Past its room the log forgets things, and then answers that a load is outranked rather than that it is not."""
    log = ChangeLog(things_max=2)
    for number in range(4):
        log.note(Change("key", f"other-{number}"))
    assert log.outranks(1, CREDENTIAL), "change 2 is forgotten: it could have been this key's"
    assert not log.outranks(2, CREDENTIAL), "changes 3 and 4 are known"
