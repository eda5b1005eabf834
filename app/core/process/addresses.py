"""Where the things around the gateway are: URLs of backends, PostgreSQL and Redis, read strictly.

Every function takes a variable's text and raises ValueError("what is wrong, what was expected"). URLs hold passwords,
those of backends by mistake, so no message repeats any part of one.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from app.core.model import Backend, RedisAddress
from app.core.process.redaction import redact

BACKENDS_EXPECTED: Final = "expected name=url[|url...][,name=url...] with http:// or https:// URLs"
DATABASE_EXPECTED: Final = "expected postgresql://user:password@host:port/database"
REDIS_EXPECTED: Final = "expected redis://[user:password@]host:port/db, rediss://... or unix:///path"
VISIBLE: Final = re.compile(r"[\x21-\x7e]+")  # urlsplit drops tabs and line ends without a word
NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
HOST_NAME: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_-]+)*\.?")
PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def _port(url: SplitResult, default: int) -> int:
    """urlsplit accepts port 0, and raises for a port that is no number."""
    port = default if url.port is None else url.port
    if not 1 <= port <= 65535:
        raise ValueError("no port")
    return port


def _is_host(host: str) -> bool:
    if ":" not in host:
        return HOST_NAME.fullmatch(host) is not None
    try:
        return ipaddress.IPv6Address(host).scope_id is None
    except ValueError:
        return False


def backends(text: str) -> dict[str, tuple[Backend, ...]]:
    """From BACKEND_URLS: the targets of each service by its name, in the order given."""
    found: dict[str, tuple[Backend, ...]] = {}
    for number, entry in enumerate(text.split(","), 1):
        name, _, urls = (part.strip() for part in entry.partition("="))
        if not NAME.fullmatch(name):
            raise ValueError(f"entry {number} has no name of letters, digits, - and _, {BACKENDS_EXPECTED}")
        if name in found:
            raise ValueError(f"backend '{redact(name)}' stands there twice, {BACKENDS_EXPECTED}")
        found[name] = targets = tuple(_backend(name, url.strip()) for url in urls.split("|"))
        if len(set(targets)) < len(targets):
            raise ValueError(f"backend '{redact(name)}' has the same URL twice, {BACKENDS_EXPECTED}")
    return found


def _backend(name: str, text: str) -> Backend:
    def wrong(what: str) -> ValueError:
        return ValueError(f"the URL of backend '{redact(name)}' {what}, {BACKENDS_EXPECTED}")

    scheme: Literal["http", "https"] = "https" if text[:6].lower() == "https:" else "http"
    if not VISIBLE.fullmatch(text) or not text.lower().startswith(f"{scheme}://"):
        raise wrong("is none")
    try:
        url = urlsplit(text)
        port = _port(url, DEFAULT_PORTS[scheme])
    except ValueError:
        raise wrong("has no valid host or port") from None
    if "@" in url.netloc:
        raise wrong("has a user name in it")
    if "?" in text or "#" in text:
        raise wrong("has a query or a fragment")
    if not url.hostname or not _is_host(url.hostname):
        raise wrong("has no valid host")
    return Backend(name, scheme, url.hostname, port, url.path.rstrip("/"))


def database(text: str) -> str:
    """From DATABASE_URL: the same text, once libpq will be able to read it (several hosts and unix sockets too)."""
    scheme, separator, rest = text.partition("://")
    if scheme not in ("postgresql", "postgres") or not separator:
        raise ValueError(f"is no PostgreSQL URL, {DATABASE_EXPECTED}")
    if not VISIBLE.fullmatch(text) or PERCENT.search(text):
        raise ValueError(f"has a space or a lone % in it (write %20, %25), {DATABASE_EXPECTED}")
    place, _, query = rest.partition("?")
    if query and not all(re.fullmatch(r"[a-z_]+=[^=&]*", pair) for pair in query.split("&")):
        raise ValueError(f"has options that are not name=value, {DATABASE_EXPECTED}")
    for host in place.partition("/")[0].rpartition("@")[2].split(","):
        _check_database_host(host)
    return text


def _check_database_host(host: str) -> None:
    _, separator, port = host.rpartition("]")[2].rpartition(":")
    if separator and port and not (re.fullmatch("[0-9]{1,5}", port) and 1 <= int(port) <= 65535):
        raise ValueError(f"has a port that is no number from 1 to 65535, {DATABASE_EXPECTED}")


def redis(text: str) -> RedisAddress:
    """From REDIS_URL; names and passwords percent-decoded. `?ssl_cert_reqs=none` is REDIS_TLS_VERIFY=none."""
    if not VISIBLE.fullmatch(text) or PERCENT.search(text):
        raise ValueError(f"has a space or a lone % in it (write %20, %25), {REDIS_EXPECTED}")
    try:
        url = urlsplit(text)
        port = _port(url, 6379)
        options = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
    except ValueError:
        raise ValueError(f"has no valid host, port or options, {REDIS_EXPECTED}") from None
    if url.scheme not in ("redis", "rediss", "unix"):
        raise ValueError(f"is no Redis URL, {REDIS_EXPECTED}")
    is_socket = url.scheme == "unix"
    if not (len(url.path) > 1 and not url.hostname if is_socket else _is_host(url.hostname or "")):
        raise ValueError(f"has no valid host or path, {REDIS_EXPECTED}")
    return RedisAddress(
        host=url.hostname or "localhost",
        port=port,
        path=unquote(url.path) if is_socket else None,
        db=redis_db(options.pop("db", "0") if is_socket else _path_db(url.path)),
        username=unquote(url.username or "") or None,
        password=unquote(url.password or "") or None,
        tls=url.scheme == "rediss",
        verify=_verify(options),
    )


def _path_db(path: str) -> str:
    return path.strip("/") or "0"


def _verify(options: dict[str, str]) -> bool:
    requirement = options.pop("ssl_cert_reqs", "required")
    if options or requirement not in ("none", "required"):
        raise ValueError(f"has an unknown option, expected at most ssl_cert_reqs=none; {REDIS_EXPECTED}")
    return requirement == "required"


def redis_db(text: str) -> int:
    """From REDIS_DB, or a Redis URL's path."""
    if not re.fullmatch("[0-9]{1,5}", text):
        raise ValueError("the database is no number, expected a whole number from 0 to 99999")
    return int(text)


def health_path(text: str) -> str:
    """From BACKEND_HEALTH_PATH: a path with an optional query, sent as it is."""
    if not re.fullmatch(r"/[\x21\x22\x24-\x7e]{0,1023}", text):
        raise ValueError("is no path, expected one that starts with '/', such as /healthz")
    return text


def host_and_port(text: str) -> tuple[str, int]:
    """From REDIS_ADDR: `host:port`, `[v6]:port`, or a host alone (6379)."""
    expected = "expected host:port"
    try:
        url = urlsplit(f"//{text}")
        port = _port(url, 6379)
    except ValueError:
        raise ValueError(f"is no host and port, {expected}") from None
    if (
        url.netloc != text
        or not VISIBLE.fullmatch(text)
        or "@" in text
        or not url.hostname
        or not _is_host(url.hostname)
    ):
        raise ValueError(f"is no host and port, {expected}")
    return url.hostname, port
