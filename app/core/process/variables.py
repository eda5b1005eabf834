"""One environment variable: validators that turn its text into a value, or say what is wrong with it. Pure.

Each raises ValueError("what is wrong, what was expected"). Text is stripped first: secrets mounted from files end in a
line end more often than not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pydantic import PlainValidator

from app.core.process.redaction import redact

SHOWN_MAX = 40
"""Characters of a wrong value that its problem repeats. Only values that are no secrets are repeated at all."""


def _shown(text: str) -> str:
    return repr(redact(text)[:SHOWN_MAX])  # things get pasted into the wrong variable


def from_text(parse: Callable[[str], Any]) -> PlainValidator:
    """`parse` for text; values of other types come from code (tests, mostly) and are taken as they are."""

    def validate(value: object) -> Any:
        if not isinstance(value, str):
            return value
        bare = value.strip()
        if not bare.isprintable():  # line ends, NUL, and bytes that were no UTF-8 (surrogates)
            raise ValueError("has unprintable characters in it, expected plain text")
        return parse(bare)

    return PlainValidator(validate)


def whole(least: int, most: int) -> PlainValidator:
    """A whole number in ASCII digits: int() alone would take `+8_0` and digits of other scripts."""

    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise ValueError(f"{_shown(text)} will not do, expected a whole number from {least} to {most}")
        return int(text)

    return from_text(parse)


def seconds(most: int, *, zero: bool = False) -> PlainValidator:
    """A duration in seconds, fractions allowed; none at all only with `zero`."""
    least = "0 or more" if zero else "more than 0"

    def parse(text: str) -> float:
        is_number = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text)
        if not is_number or float(text) > most or not (zero or float(text)):
            raise ValueError(f"{_shown(text)} will not do, expected seconds, {least} and at most {most}")
        return float(text)

    return from_text(parse)


def one_of(**choices: object) -> PlainValidator:
    """A word, in any case, and the value it stands for."""

    def parse(text: str) -> object:
        if text.lower() not in choices:
            raise ValueError(f"{_shown(text)} is none of the choices, expected {', '.join(choices)}")
        return choices[text.lower()]

    return from_text(parse)


def word(*choices: str) -> PlainValidator:
    """One of the words, in any case; the value is the word in lower case."""
    return one_of(**{choice: choice for choice in choices})


def host(text: str) -> str:
    """An address or name to listen on."""
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,253}", text):
        raise ValueError(f"{_shown(text)} is no address, expected one to listen on, such as 127.0.0.1")
    return text
