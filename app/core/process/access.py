"""The access log: one line a request, fields and order as contract.md section 7 promises. Pure.

On the hot path: a line may cost 3 us. Both functions take the same arguments, so the mains choose once, by LOG_FORMAT.
"""

from __future__ import annotations

import re
import time
from typing import Final

import orjson

from app.core.process.redaction import redact

LINE_BYTES_MAX: Final = 4096
"""PIPE_BUF on Linux: a write of up to this many bytes to a pipe is not mixed with another process's (pipe(7)). So every
line is made to fit, and the workers of one gateway can share one pipe."""
PATH_CHARACTERS_MAX: Final = 2048
TEXTS_MAX: Final = 4_096
"""That are remembered with their quotation marks."""
REST_CHARACTERS_MAX: Final = 256
"""For the other texts of a line that won't fit: methods and request ids are the client's own words."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_THOUSANDTHS: Final = tuple(f".{number:03d}" for number in range(1000))
_FIELDS: Final = ("timestamp", "level", "method", "path", "status", "duration_ms", "bytes", "client_ip")
_MORE_FIELDS: Final = ("request_id", "organization_id", "plan_tier", "service", "key_id", "backend_ms")

_second = -1
_second_text = ""


def timestamp(at: float) -> str:
    """Unix seconds as RFC 3339 UTC with milliseconds. The last second's text is kept: most lines share it."""
    global _second, _second_text
    second = int(at)
    if second != _second:
        _second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        _second = second
    return f"{_second_text}{_THOUSANDTHS[int((at - second) * 1000)]}Z"


def _level(status: int) -> str:
    return "info" if status < 400 else "warn" if status < 500 else "error"


def _milliseconds(seconds: float) -> str:
    """As a number of JSON, to the microsecond."""
    microseconds = int(seconds * 1_000_000 + 0.5)
    return f"{microseconds // 1000}{_THOUSANDTHS[microseconds % 1000]}"


def access_line(
    *,
    started_at: float,
    method: str,
    path: str,
    status: int,
    duration_seconds: float,
    body_bytes: int,
    client_ip: str,
    request_id: str,
    organization_id: str | None,
    tier: str | None,
    service: str | None,
    key_id: str | None,
    backend_seconds: float | None,
) -> bytes:
    """The JSON line of one request, line end included, at most LINE_BYTES_MAX bytes.

    `path` may carry its query, which does not show; `body_bytes` counts the response's body; `backend_seconds` is None
    when no backend was asked.
    """
    path = path.partition("?")[0][:PATH_CHARACTERS_MAX]
    if "sk_" in path or "sk%" in path or "@" in path:
        path = redact(path)
    at, took = timestamp(started_at), _milliseconds(duration_seconds)
    backend = "null" if backend_seconds is None else _milliseconds(backend_seconds)
    try:
        whose = _whose(organization_id, tier, service, key_id)
        line = (
            f'{{"timestamp":"{at}","level":"{_level(status)}","method":{_quoted(method)},"path":{_quote(path)},'
            f'"status":{status},"duration_ms":{took},"bytes":{body_bytes},"client_ip":{_quoted(client_ip)},'
            f'"request_id":{_quote(request_id)},{whose},"backend_ms":{backend}}}\n'
        ).encode()
    except TypeError:  # bytes that are no UTF-8, carried as surrogates
        line = b""
    if 0 < len(line) <= LINE_BYTES_MAX:
        return line
    texts = {"method": method, "client_ip": client_ip, "request_id": request_id, "service": service}
    owner = {"organization_id": organization_id, "plan_tier": tier, "key_id": key_id}
    numbers = {"status": status, "duration_ms": float(took), "bytes": body_bytes, "backend_ms": orjson.loads(backend)}
    fields = {"timestamp": at, "level": _level(status), "path": path, **texts, **owner, **numbers}
    return _bounded({name: fields[name] for name in _FIELDS + _MORE_FIELDS})


def _quote(text: str) -> str:
    """As JSON. Raises TypeError for what is no Unicode."""
    return orjson.dumps(text).decode()


def _quoted(text: str) -> str:
    """The same for texts that come again."""
    found = _texts.get(text)
    if found is None:
        if len(_texts) >= TEXTS_MAX:
            _texts.clear()
        found = _texts[text] = _quote(text)
    return found


_texts: dict[str, str] = {}


def _whose(organization_id: str | None, tier: str | None, service: str | None, key_id: str | None) -> str:
    """The members that are the same in all lines of one key and service."""
    whose = (organization_id, tier, service, key_id)
    found = _owners.get(whose)
    if found is None:
        if len(_owners) >= TEXTS_MAX:
            _owners.clear()
        fields = {"organization_id": organization_id, "plan_tier": tier, "service": service, "key_id": key_id}
        found = _owners[whose] = orjson.dumps(fields).decode()[1:-1]
    return found


_owners: dict[tuple[str | None, str | None, str | None, str | None], str] = {}


def _bounded(fields: dict[str, object]) -> bytes:
    """The line of texts that are no UTF-8, or that escaping made too long (a path of quotation marks doubles)."""
    cut = {
        name: plain(value)[:REST_CHARACTERS_MAX] if isinstance(value, str) else value for name, value in fields.items()
    }
    path = plain(str(fields["path"]))[:PATH_CHARACTERS_MAX]
    while True:
        line = orjson.dumps(cut | {"path": path}, option=orjson.OPT_APPEND_NEWLINE)
        if len(line) <= LINE_BYTES_MAX or not path:
            return line
        path = path[: len(path) // 2]


def plain(text: str) -> str:
    """Visible ASCII and spaces, the rest escaped: a client's text may neither begin a line nor steer a terminal."""
    return _CONTROL.sub(
        lambda found: f"\\x{ord(found[0]):02x}", text.encode("ascii", "backslashreplace").decode("ascii")
    )


def console_line(
    *,
    started_at: float,
    method: str,
    path: str,
    status: int,
    duration_seconds: float,
    body_bytes: int,
    client_ip: str,
    request_id: str,
    organization_id: str | None,
    tier: str | None,
    service: str | None,
    key_id: str | None,
    backend_seconds: float | None,
) -> bytes:
    """The same request for a person's eyes."""
    shown = redact(plain(f"{method[:32]} {path.partition('?')[0]}"))[:PATH_CHARACTERS_MAX]
    who = f"{organization_id or '-'} ({tier or '-'})"
    backend = "" if backend_seconds is None else f", {service} {backend_seconds * 1000:.1f} ms"
    took = f"{duration_seconds * 1000:.1f} ms{backend}"
    place = plain(f"{client_ip} {request_id}")[:REST_CHARACTERS_MAX]
    time_of_day = timestamp(started_at)[11:23]
    line = (
        f"{time_of_day} {_level(status):5} {status} {shown} {body_bytes} B in {took}, {who} {key_id or '-'} {place}\n"
    )
    return line.encode("utf-8", "backslashreplace")
