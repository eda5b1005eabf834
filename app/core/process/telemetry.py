"""What a process says about itself: loguru's messages and those of the standard library's `logging`, one line each.

JSON or readable lines, through the one writer that the access lines use too (output.py). Nothing passes unredacted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import orjson
from loguru import logger

from app.core.process.access import LINE_BYTES_MAX, timestamp
from app.core.process.redaction import redact

Write = Callable[[bytes], None]

LEVELS: Final = {"debug": 10, "info": 20, "warn": 30, "error": 40}
EXTRA_CHARACTERS_MAX: Final = 512
TRACEBACK_CHARACTERS_MAX: Final = 32_768
"""Before the line is made to fit: a bound on the work, not on the result."""
FOREIGN: Final = ("sanic", "gunicorn", "asyncio", "coredis", "psycopg")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
CHATTY: Final = ("coredis", "psycopg")
"""Libraries that log every failed attempt, with tracebacks. Our modules tell of an outage when it begins and ends."""


def configure(level: str, log_format: str, write: Write) -> None:
    """Sends every message of this process to `write`, from `level` (a key of LEVELS) up.

    Uncaught exceptions and warnings count as messages. To be called again in a forked worker, and whenever a library
    has installed handlers of its own.
    """
    render = _json if log_format == "json" else _console
    logger.remove()
    logger.configure(patcher=_set_exception_aside)
    logger.add(
        lambda message: write(_rendered(render, message.record)),
        level=LEVELS[level],
        format=lambda record: "",  # the sink renders the record itself
        backtrace=False,
        diagnose=False,  # it would print the values of variables: keys, passwords
    )
    _take_over_logging(level)
    logging.captureWarnings(True)
    sys.excepthook = _on_uncaught


def _set_exception_aside(record: Any) -> None:
    """loguru would format it too, recursively; for a long chain that fails, and what it prints then is not redacted."""
    record["caught"], record["exception"] = record["exception"], None


def _rendered(render: Callable[[Any], bytes], record: Any) -> bytes:
    """The line of a record. Never raises: loguru would print the whole record, unredacted, to standard error."""
    try:
        return render(record)
    except Exception as error:  # noqa: BLE001 - texts and exceptions of any library come by here
        record.update(message=f"a message of {record['name']} cannot be shown: {type(error).__name__}", caught=None)
        return render({**record, "extra": {}})


def report_dropped(count: int) -> None:
    """For when the log takes lines again."""
    logger.warning(f"{count} log lines were dropped: standard output failed or was too slow")


def report_failing(reason: str, descriptor: int = 2) -> None:
    """For when standard output fails: a line on standard error, unless that would have to wait or fails as well."""
    text = f"standard output fails ({reason}): log lines are dropped until it works again"
    fields: dict[str, object] = {"timestamp": timestamp(time.time()), "level": "error", "message": text}
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [descriptor], [], 0)[1]:
            os.write(descriptor, _fit(fields))


def _take_over_logging(level: str) -> None:
    logging.basicConfig(
        handlers=[_Intercept()], level=logging.DEBUG if level == "debug" else logging.WARNING, force=True
    )
    for name in [*logging.root.manager.loggerDict]:
        if name.partition(".")[0] in FOREIGN:
            foreign = logging.getLogger(name)
            foreign.handlers.clear()
            foreign.setLevel(logging.NOTSET)
            foreign.propagate = True


def _on_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logger.opt(exception=(kind, error, trace)).error("the process ends by an unexpected error")


class _Intercept(logging.Handler):
    """The standard library's records as loguru's. What a library calls info is a detail to whoever runs the gateway."""

    def emit(self, record: logging.LogRecord) -> None:
        is_detail = record.levelno < logging.WARNING or record.name.partition(".")[0] in CHATTY
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not match the format
            text = str(record.msg)
        logger.opt(exception=record.exc_info).log("DEBUG" if is_detail else record.levelname, "{}", text)


def _level(number: int) -> str:
    return next((name for name, least in reversed(LEVELS.items()) if number >= least), "debug")


def _exception(record: Any) -> str:
    """The traceback of a record, or "". Its end says most, so its beginning is what a bound takes away."""
    caught = record["caught"]
    if caught is None or caught.value is None:
        return ""
    return redact("".join(traceback.format_exception(caught.type, caught.value, caught.traceback))).rstrip()[
        -TRACEBACK_CHARACTERS_MAX:
    ]


def _extra(value: object) -> object:
    """Numbers, booleans and None as they are; everything else as bounded text."""
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    return redact(_clean(str(value)))[:EXTRA_CHARACTERS_MAX]


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _json(record: Any) -> bytes:
    fields: dict[str, object] = {
        "timestamp": timestamp(record["time"].timestamp()),
        "level": _level(record["level"].no),
        "message": redact(_clean(record["message"])),
    }
    for name, value in record["extra"].items():
        fields.setdefault(str(name), _extra(value))
    trace = _clean(_exception(record))
    if trace:
        fields["exception"] = trace
    return _fit(fields)


def _fit(fields: dict[str, object]) -> bytes:
    """The fields as a line of at most LINE_BYTES_MAX bytes: the traceback loses its beginning, the message its end."""
    line = _dump(fields)
    while len(line) > LINE_BYTES_MAX:
        excess = len(line) - LINE_BYTES_MAX + 8
        trace, message = str(fields.get("exception", "")), str(fields["message"])
        if trace:
            fields["exception"] = f"…{trace[_step(excess, trace) :]}" if len(trace) > 64 else ""
        elif len(message) > 64:
            fields["message"] = f"{message[: -_step(excess, message)]}…"
        else:
            fields = {name: fields[name] for name in ("timestamp", "level", "message")}
        line = _dump(fields)
    return line


def _step(excess_bytes: int, text: str) -> int:
    """Characters to take away: a character is one to six bytes in JSON, so a sixth of the excess, and at least some."""
    return min(len(text) // 2, max(16, excess_bytes // 6))


def _dump(fields: dict[str, object]) -> bytes:
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def _steady(value: object) -> str:
    """Text that neither begins a line of its own nor steers a terminal."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", str(value)).replace("\n", "\n  ")


def _console(record: Any) -> bytes:
    extra = " ".join(f"{name}={_steady(_extra(value))}" for name, value in record["extra"].items())
    said = _steady(redact(record["message"]))
    head = f"{timestamp(record['time'].timestamp())[11:23]} {_level(record['level'].no):5} {said}"
    text = "\n".join(part for part in (f"{head} {extra}".rstrip(), _steady(_exception(record))) if part)
    return f"{text}\n".encode("utf-8", "backslashreplace")
