"""How coredis's exceptions become ours (for `link` and `wire` only)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from coredis.exceptions import BusyLoadingError, RedisError
from coredis.exceptions import ConnectionError as NoConnection
from coredis.parser import Parser

from app.core.redis.refusals import RedisRefusal, RedisUnavailable

# coredis cuts the code off the text of the errors that have a class of their own there.
_CODES: Final = {kind: code for code, kind in Parser.EXCEPTION_CLASSES.items() if isinstance(kind, type)}


def translated(answers: Sequence[Any]) -> list[Any]:
    """A batch's answers with our exceptions in it; raises RedisUnavailable when nothing at all was answered."""
    ours = [_translate(answer) if isinstance(answer, BaseException) else answer for answer in answers]
    if ours and all(isinstance(answer, RedisUnavailable) for answer in ours):
        raise ours[0]
    return ours


def root(failure: BaseException) -> str:
    """The text of the first cause, for the log."""
    while failure.__cause__ is not None:
        failure = failure.__cause__
    return str(failure) or type(failure).__name__


def _translate(failure: BaseException) -> Exception:
    if isinstance(failure, RedisUnavailable):
        return failure
    # coredis files -LOADING under its ConnectionError although the server did answer.
    answered = isinstance(failure, BusyLoadingError) or not isinstance(failure, NoConnection)
    if not (answered and isinstance(failure, RedisError)):
        return RedisUnavailable(f"connection lost: {root(failure)}", sent=True)
    if code := _CODES.get(type(failure)):
        return RedisRefusal(code, str(failure))
    code, _, text = str(failure).partition(" ")
    return RedisRefusal(code, text) if code.isupper() else RedisRefusal("ERR", str(failure))
