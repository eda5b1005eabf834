"""What the commands' options are checked for, beyond what click knows: each refuses with BadParameter, so status 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import httpx

NUMBERS_MAX = 16


def http_url(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """A URL that a request can be sent to."""
    if text is None:
        return None
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise click.BadParameter("this is no URL") from None
    if url.scheme not in ("http", "https") or not url.host or not text.isascii() or not text.isprintable():
        raise click.BadParameter("expected http://host:port/path or https://...")
    return text


def sendable(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """A key that fits into a header."""
    if text is not None and (not text or not text.isascii() or not text.isprintable() or " " in text):
        raise click.BadParameter("a key consists of visible ASCII characters")
    return text


def numbers(least: int, most: int) -> Callable[[click.Context, click.Parameter, str | None], tuple[int, ...]]:
    """Whole numbers between these, with commas between them, in the order given."""

    def parse(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, ...]:
        words = text.split(",") if text is not None else []
        if len(words) > NUMBERS_MAX or not all(word.strip().isdecimal() and len(word) < 10 for word in words):
            raise click.BadParameter(f"expected up to {NUMBERS_MAX} whole numbers with commas between them")
        found = tuple(dict.fromkeys(map(int, words)))
        if not all(least <= number <= most for number in found):
            raise click.BadParameter(f"each must be from {least} to {most}")
        return found

    return parse


def svg_file(_: click.Context, __: click.Parameter, text: str | None) -> Path | None:
    """A file that can be written once the measuring is done: better refused before."""
    if text is None:
        return None
    file = Path(text)
    if file.suffix != ".svg" or not file.parent.is_dir():
        raise click.BadParameter("expected a file name that ends in .svg, in a folder that exists")
    return file
