"""The admin app's tokens: ADMIN_TOKENS as text, and who a presented one belongs to. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Role = Literal["viewer", "editor", "owner"]

RANK: Final[dict[str, int]] = {"viewer": 0, "editor": 1, "owner": 2}
"""Each role may do what those before it may."""
TOKEN_CHARACTERS_MIN: Final = 32
EXPECTED: Final = (
    "expected name:role:token[,...], roles viewer, editor, owner, tokens of at least 32 characters; "
    'make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
)
RESERVED: Final = frozenset({"cli"})
"""Who the audit log says it was when the tools did it."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{32,512}")  # RFC 6750 section 2.1: what a Bearer header can carry


@dataclass(frozen=True, slots=True)
class AdminToken:
    """One person or service. Only the SHA-256 digest of the token is kept, so nothing can print the token."""

    name: str
    role: Role
    digest: bytes

    def may(self, role: Role) -> bool:
        """Whether this one's role includes `role`."""
        return RANK[self.role] >= RANK[role]


def digest(token: str) -> bytes:
    """32 bytes. Header bytes that are no UTF-8 arrive as surrogates and digest like any others."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def holder(tokens: Sequence[AdminToken], presented: bytes) -> AdminToken | None:
    """Whose digest `presented` is. Looks at every token to its end, so the time taken tells nothing."""
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, presented):
            found = token
    return found


def parse(text: str) -> tuple[AdminToken, ...]:
    """From `name:role:token[,...]`. Raises ValueError, in which no token is repeated."""
    tokens = tuple(_token(number, entry.strip()) for number, entry in enumerate(text.split(","), start=1))
    if len({token.name for token in tokens}) < len(tokens):
        raise ValueError(f"has a name twice, {EXPECTED}")
    if len({token.digest for token in tokens}) < len(tokens):
        raise ValueError(f"has a token twice, {EXPECTED}")
    return tokens


def _token(number: int, entry: str) -> AdminToken:
    name, _, rest = entry.partition(":")
    role, _, token = rest.partition(":")
    if not _NAME.fullmatch(name) or name in RESERVED:
        raise ValueError(f"entry {number} has no usable name, {EXPECTED}")
    if role not in RANK:
        raise ValueError(f"entry {number} has an unknown role, {EXPECTED}")
    if len(token) < TOKEN_CHARACTERS_MIN:
        raise ValueError(f"entry {number} has a token of fewer than {TOKEN_CHARACTERS_MIN} characters, {EXPECTED}")
    if not _TOKEN.fullmatch(token):
        raise ValueError(
            f"entry {number} has a token with other characters than letters, digits and ._~+/=-, {EXPECTED}"
        )
    return AdminToken(name, role, digest(token))  # type: ignore[arg-type]  # the role is one of RANK's
