"""Secrets that must not reach a log: keys, bearer tokens, passwords in URLs and connection strings. Pure."""

from __future__ import annotations

import re
from typing import Final

SECRETS: Final = re.compile(
    r"(?P<key>sk_(?:test|live)_)[A-Za-z0-9]{5,}"  # the public prefix (12 characters, 4 of them random) stays readable
    r"|(?P<bearer>\bbearer\s+)[A-Za-z0-9._~+/=:-]+"
    r"|(?P<url>://[^\s:/@\"']*:)[^\s@\"']+(?=@)"
    r"|(?P<option>\b(?:password|passwd|secret|token)\s*=\s*)[^\s&,;\"')]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """`text` with every secret that can be told by its shape replaced by `***`."""
    return SECRETS.sub(_mask, text)


def _mask(found: re.Match[str]) -> str:
    return f"{found[found.lastgroup or 0]}***"
