"""Secrets that must not reach a log: keys, bearer tokens, passwords in URLs and connection strings. Pure."""

from __future__ import annotations

import re
from typing import Final

SECRETS: Final = re.compile(
    r"(?P<key>sk(?:_|%5f)(?:test|live)(?:_|%5f))[A-Za-z0-9]{5,}"  # a bare prefix (12 characters) stays readable
    r"|(?P<bearer>\bbearer\s+)[A-Za-z0-9._~+/=:-]+"
    r"|(?P<url>//[^\s:/@\"']*:)[^\s/\"']+(?=@)"  # up to the last @; never past a slash, which keeps this linear
    r"|(?P<user>//)[^\s:/@\"']+(?=@)"  # a token in the name's place
    r"|(?P<option>\b(?:password|passwd|secret|token)\s*=\s*)[^\s&,;\"')]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """`text` with every secret that can be told by its shape replaced by `***`."""
    return SECRETS.sub(_mask, text)


def _mask(found: re.Match[str]) -> str:
    return f"{found[found.lastgroup or 0]}***"
