"""If-Match, If-None-Match and the entity tags that answer them (RFC 9110 sections 8.8.3 and 13.1). Pure.

A tag stands for what a change would overwrite: a row's version, or the limits' own numbers. `last_used_at`, which
gateways keep writing, is no part of it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final, Self

from app.core.data.records import KeyRecord, OrganizationRecord

_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e]*"'
_LIST: Final = re.compile(rf"[ \t]*(?:\*|{_TAG}(?:[ \t]*,[ \t]*{_TAG})*)[ \t]*")


def version_tag(record: OrganizationRecord | KeyRecord) -> str:
    """The tag of an organization or a key."""
    return f'"{record.version}"'


def limits_tag(record: OrganizationRecord) -> str:
    """The tag of an organization's limits, by their content: rows of own limits come and go, and begin anew."""
    content = f"{record.limits} {record.has_own_limits}"
    return f'"{hashlib.sha256(content.encode()).hexdigest()[:16]}"'


@dataclass(frozen=True, slots=True)
class Precondition:
    """The tags of If-Match; `anything` for `*` or no header at all: the change is made whatever the state is."""

    tags: frozenset[str] = frozenset()
    anything: bool = True

    @classmethod
    def parse(cls, field: str) -> Self:
        """From the field's value. Raises ValueError when it is no list of tags."""
        if not _LIST.fullmatch(field):
            raise ValueError('expected an ETag with its quotation marks, such as "3", or *')
        return cls(frozenset(re.findall(_TAG, field)), anything=field.strip() == "*")

    def admits(self, tag: str) -> bool:
        """By strong comparison: a weak tag, `W/"3"`, matches nothing."""
        return self.anything or tag in self.tags


def is_unchanged(if_none_match: str, tag: str) -> bool:
    """Whether the reader has this very state already (weak comparison; something malformed is no state)."""
    if not _LIST.fullmatch(if_none_match):
        return False
    return if_none_match.strip() == "*" or tag in {each.removeprefix("W/") for each in re.findall(_TAG, if_none_match)}
