"""What a process says about itself. Each case is a process: logging is global to one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from app.core.process.access import LINE_BYTES_MAX
from app.core.process.telemetry import _fit

ROOT = Path(__file__).resolve().parents[2]
SECRET = "0123456789abcdef" * 2
START = """
import logging, sys, warnings
from loguru import logger
from app.core.process.output import Output
from app.core.process.telemetry import configure
output = Output()
configure(sys.argv[1], sys.argv[2], output.write)
"""


def say(code: str, level: str = "info", log_format: str = "json") -> tuple[str, str]:
    """Standard output and error of a process that configures its log and runs `code`."""
    done = subprocess.run(
        [sys.executable, "-c", START + textwrap.dedent(code), level, log_format],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout, done.stderr


def lines(code: str, level: str = "info") -> list[dict[str, Any]]:
    told, errors = say(code, level)
    assert errors == ""
    return [json.loads(line) for line in told.splitlines()]


def test_messages_are_json() -> None:
    """A message is one JSON object with time, level, text and what was bound to it, in that order."""
    (found,) = lines("logger.bind(request_id='r1', attempt=2, where=None).warning('hello {}', '✅')")
    assert list(found) == ["timestamp", "level", "message", "request_id", "attempt", "where"]
    assert (found["level"], found["message"], found["request_id"], found["attempt"]) == ("warn", "hello ✅", "r1", 2)
    assert len(found["timestamp"]) == len("2026-01-25T10:30:00.123Z")
    assert found["timestamp"].endswith("Z")


def test_levels() -> None:
    """Messages below the level do not show, and loguru's levels become the contract's four."""
    code = "logger.debug('d'); logger.success('s'); logger.warning('w'); logger.critical('c')"
    assert [line["level"] for line in lines(code, "debug")] == ["debug", "info", "warn", "error"]
    assert [line["message"] for line in lines(code, "warn")] == ["w", "c"]


def test_standard_logging_is_taken_over() -> None:
    """Libraries' warnings come out as JSON, their details only at debug, their own handlers not at all."""
    code = """
        noisy = logging.getLogger("sanic.root")
        noisy.addHandler(logging.StreamHandler(sys.stdout)); noisy.propagate = False
        configure(sys.argv[1], sys.argv[2], output.write)
        noisy.info("chatter"); noisy.warning("look: %s", "here")
        logging.getLogger("coredis.pool").error("retrying", exc_info=ValueError("x"))
        logging.getLogger("psycopg.pool").warning("error connecting")
        logging.getLogger("asyncio").error("%d", "not a number")
        warnings.warn("old", ResourceWarning, stacklevel=1)
    """
    assert [(line["level"], line["message"]) for line in lines(code)] == [("warn", "look: here"), ("error", "%d")]
    assert {"chatter", "retrying", "error connecting"} <= {line["message"] for line in lines(code, "debug")}


def test_tracebacks_are_one_field_and_bounded() -> None:
    """An exception's traceback is a field of its message; however deep, the line fits, and the end is kept."""
    code = """
        def fall(depth):
            if depth: fall(depth - 1)
            raise ValueError("deep down " + "ü" * 3000)
        try: fall(200)
        except ValueError: logger.exception("failed")
    """
    told, _ = say(code)
    assert len(told.encode()) <= LINE_BYTES_MAX
    found = json.loads(told)
    assert (found["level"], found["message"]) == ("error", "failed")
    assert found["exception"].endswith("üüü")


def test_a_chain_without_end_is_one_line() -> None:
    """An exception with a thousand causes, and one whose text cannot be had, are lines like all others."""
    code = """
        def chain(depth):
            try: raise ValueError("deep")
            except ValueError:
                if depth: chain(depth - 1)
                raise KeyError("end")
        try: chain(900)
        except KeyError: logger.exception("chained")
        class Mute(Exception):
            def __str__(self): raise RuntimeError("no")
        logger.bind(who=Mute()).info("bound")
        try: raise Mute
        except Mute: logger.exception("mute")
    """
    told, errors = say(code)
    first, second, third = (json.loads(line) for line in told.splitlines())
    assert first["message"] == "chained"
    assert first["exception"].endswith("KeyError: 'end'")
    assert second["message"] == "a message of __main__ cannot be shown: RuntimeError"
    assert third["message"] == "mute"
    assert errors == ""


def test_uncaught_exceptions_are_logged() -> None:
    """An exception that ends the process is a line of its log."""
    (found,) = lines("raise RuntimeError('the end')")
    assert found["level"] == "error"
    assert "RuntimeError: the end" in found["exception"]


def test_no_secret_shows() -> None:
    """Keys, tokens and passwords are masked in messages, bound values and tracebacks, in both formats."""
    code = f"""
        secret = "{SECRET}"
        logger.bind(key="sk_live_" + secret).error("Bearer " + secret + " postgres://u:" + secret + "@h")
        try: raise ValueError("redis://:" + secret + "@h")
        except ValueError: logger.exception("x")
    """
    for log_format in ("json", "console"):
        told, _ = say(code, log_format=log_format)
        assert SECRET not in told
        assert told.count("***") == 4


def test_console() -> None:
    """The readable form is a line a message, with what was bound to it."""
    told, _ = say("logger.bind(port=8080).info('started')", log_format="console")
    assert told.rstrip().endswith("info  started port=8080")


def test_nobody_else_writes_a_console_line() -> None:
    """Text from outside in a message, a field or an exception steers no terminal, and begins no line."""
    code = r"""
        logger.bind(who="\x1b[2J\x9b1m").info("a\x7f\r\n12:00:00.000 error b")
        try: raise ValueError("c\x1b\n12:00:00.000 error d")
        except ValueError: logger.exception("e")
    """
    told, _ = say(code, log_format="console")
    assert [letter for letter in told if not letter.isprintable() and letter != "\n"] == []
    assert told.count(r"\x1b") == 2
    assert len(re.findall(r"^\S", told, re.MULTILINE)) == 3, "two messages and the head of a traceback"


def test_lost_text_does_not_stop_a_line() -> None:
    """Text that is no UTF-8 and numbers that JSON cannot hold still make a line."""
    first, second = lines(r"logger.info('a\udcffb'); logger.bind(big=2**70, odd=object).info('c')")
    assert first["message"] == r"a\udcffb"
    assert second["big"] == str(2**70)


@pytest.mark.parametrize("text", ["x" * 20_000, "ü" * 20_000, "\x01" * 20_000, '"' * 20_000])
def test_any_message_fits(text: str) -> None:
    """A message of any length and escaping becomes a line that fits into one write, mostly filled."""
    line = _fit(
        {"timestamp": "t", "level": "info", "message": text, **{f"n{number}": text[:512] for number in range(3)}}
    )
    assert len(line) <= LINE_BYTES_MAX
    assert json.loads(line)["message"].endswith("…")
    long_trace = _fit({"timestamp": "t", "level": "error", "message": "m", "exception": text})
    assert LINE_BYTES_MAX // 4 < len(long_trace) <= LINE_BYTES_MAX
