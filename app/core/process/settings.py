"""The configuration, read once at start from the environment; `.env` in the working directory fills what it lacks.

The only module that reads the environment. Each field's validator says in one sentence what is wrong with a value and
what was expected; `load` collects all of them. `.env.example` lists the same variables (a test compares).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Final, Literal, TypeVar, cast

from pydantic import AliasChoices, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, SettingsConfigDict

from app.core.keys import static_key
from app.core.keys.static_key import StaticKey
from app.core.model import Backend, RedisAddress
from app.core.process import addresses, admin_token
from app.core.process.admin_token import AdminToken
from app.core.process.variables import from_text, host, one_of, seconds, whole, word
from app.core.relay.proxies import TrustedProxies

LogLevel = Literal["debug", "info", "warn", "error"]
LogFormat = Literal["json", "console"]
Fallback = Literal["local", "open", "closed"]
S = TypeVar("S", bound="DatabaseSettings")

HOUR_SECONDS: Final = 3600
DAY_SECONDS: Final = 86_400
Port = Annotated[int, whole(1, 65_535)]
Timeout = Annotated[float, seconds(HOUR_SECONDS)]


class SettingsError(Exception):
    """The environment does not make a configuration. `problems`: "NAME: what is wrong, what was expected", each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


def _processors() -> int:
    """Those this process may use, where the system tells (Linux): a container's share, not the machine's."""
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class DatabaseSettings(BaseSettings):
    """What the tools need: where PostgreSQL and Redis are, and the port to name in a curl line."""

    model_config = SettingsConfigDict(
        case_sensitive=True,
        env_ignore_empty=True,
        env_file=".env",
        enable_decoding=False,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        validate_default=True,
    )

    port: Port = Field(default=8080, validation_alias=AliasChoices("PORT", "GATEWAY_PORT"))
    database_url: Annotated[str | None, from_text(addresses.database)] = Field(
        default=None, validation_alias="DATABASE_URL", repr=False
    )
    redis_url: Annotated[RedisAddress | None, from_text(addresses.redis)] = Field(
        default=None, validation_alias="REDIS_URL", repr=False
    )
    redis_addr: Annotated[tuple[str, int] | None, from_text(addresses.host_and_port)] = Field(
        default=None, validation_alias="REDIS_ADDR"
    )
    redis_password: Annotated[str | None, from_text(str)] = Field(
        default=None, validation_alias="REDIS_PASSWORD", repr=False
    )
    redis_db: Annotated[int, from_text(addresses.redis_db)] = Field(default=0, validation_alias="REDIS_DB")
    redis_verify: Annotated[bool, one_of(full=True, none=False)] = Field(
        default=True, validation_alias="REDIS_TLS_VERIFY"
    )

    @property
    def redis(self) -> RedisAddress | None:
        """Where Redis is, or None: REDIS_URL, else REDIS_ADDR with its companions."""
        if self.redis_url is not None:
            return replace(self.redis_url, verify=self.redis_verify and self.redis_url.verify)
        if self.redis_addr is not None:
            return RedisAddress(*self.redis_addr, db=self.redis_db, password=self.redis_password)
        return None


class ServerSettings(DatabaseSettings):
    """What both servers share."""

    log_level: Annotated[LogLevel, word("debug", "info", "warn", "error")] = Field(
        default="info", validation_alias="LOG_LEVEL"
    )
    log_format: Annotated[LogFormat, word("json", "console")] = Field(default="json", validation_alias="LOG_FORMAT")
    trusted_proxies: Annotated[TrustedProxies, from_text(TrustedProxies.parse)] = Field(
        default=TrustedProxies(), validation_alias="TRUSTED_PROXIES"
    )
    shutdown_seconds: Timeout = Field(default=30.0, validation_alias="SHUTDOWN_TIMEOUT")


class GatewaySettings(ServerSettings):
    """What `python -m app` reads: every variable of the README's table but the admin app's own."""

    workers: Annotated[int, whole(1, 256)] = Field(default_factory=_processors, validation_alias="WEB_CONCURRENCY")
    backends: Annotated[dict[str, tuple[Backend, ...]], from_text(addresses.backends)] = Field(
        default={}, validation_alias="BACKEND_URLS"
    )
    backend_connect_seconds: Timeout = Field(default=2.0, validation_alias="BACKEND_CONNECT_TIMEOUT")
    backend_idle_seconds: Timeout = Field(default=30.0, validation_alias="BACKEND_TIMEOUT")
    upload_idle_seconds: Timeout = Field(default=30.0, validation_alias="UPLOAD_IDLE_TIMEOUT")
    upload_seconds: Annotated[float, seconds(DAY_SECONDS)] = Field(default=3600.0, validation_alias="UPLOAD_TIMEOUT")
    tunnel_idle_seconds: Annotated[float, seconds(DAY_SECONDS)] = Field(
        default=300.0, validation_alias="TUNNEL_IDLE_TIMEOUT"
    )
    backend_deadline: Annotated[float | None, seconds(HOUR_SECONDS)] = Field(
        default=None, validation_alias="BACKEND_DEADLINE"
    )
    backend_connections_max: Annotated[int, whole(1, 65_535)] = Field(
        default=1024, validation_alias="BACKEND_MAX_CONNECTIONS"
    )
    backend_health_path: Annotated[str | None, from_text(addresses.health_path)] = Field(
        default=None, validation_alias="BACKEND_HEALTH_PATH"
    )
    static_keys: Annotated[tuple[StaticKey, ...], from_text(static_key.parse)] = Field(
        default=(), validation_alias="VALID_API_KEYS", repr=False
    )
    key_ttl_seconds: Annotated[float, seconds(DAY_SECONDS)] = Field(default=900.0, validation_alias="API_KEY_CACHE_TTL")
    connections_max: Annotated[int, whole(1, 1_000_000)] = Field(default=10_000, validation_alias="CONNECTIONS_MAX")
    connections_per_address_max: Annotated[int, whole(1, 1_000_000)] = Field(
        default=5_000, validation_alias="CONNECTIONS_PER_ADDRESS_MAX"
    )
    request_bytes_max: Annotated[int, whole(1, 2**50)] = Field(
        default=104_857_600, validation_alias="REQUEST_MAX_BYTES"
    )
    rate_limit_fallback: Annotated[Fallback, word("local", "open", "closed")] = Field(
        default="local", validation_alias="RATE_LIMIT_FALLBACK"
    )
    rate_limit_nodes: Annotated[int, whole(1, 10_000)] = Field(default=1, validation_alias="RATE_LIMIT_NODES")
    rate_limit_ietf_headers: Annotated[bool, one_of(on=True, off=False, true=True, false=False)] = Field(
        default=True, validation_alias="RATE_LIMIT_IETF_HEADERS"
    )
    shutdown_delay_seconds: Annotated[float, seconds(HOUR_SECONDS, zero=True)] = Field(
        default=2.0, validation_alias="SHUTDOWN_DELAY"
    )

    @field_validator("backends")
    @classmethod
    def _names_a_backend(cls, value: dict[str, tuple[Backend, ...]]) -> dict[str, tuple[Backend, ...]]:
        if not value:
            raise ValueError(f"is not set, {addresses.BACKENDS_EXPECTED}")
        return value

    @field_validator("static_keys")
    @classmethod
    def _someone_gets_in(cls, value: tuple[StaticKey, ...], info: ValidationInfo) -> tuple[StaticKey, ...]:
        # A DATABASE_URL with a mistake in it is absent from info.data, and is reported by itself.
        if not value and info.data.get("database_url", "") is None:
            raise ValueError("is not set and neither is DATABASE_URL, expected at least one of them")
        return value

    @property
    def backend_deadline_seconds(self) -> float:
        """From a request's arrival to the head of its answer: BACKEND_DEADLINE, else room for two time-outs."""
        return self.backend_deadline or 2 * self.backend_idle_seconds


class AdminSettings(ServerSettings):
    """Where `python -m admin` listens: its own port, on loopback unless told otherwise."""

    admin_port: Port = Field(default=8081, validation_alias=AliasChoices("ADMIN_PORT", "PORT"))
    admin_host: Annotated[str, from_text(host)] = Field(default="127.0.0.1", validation_alias="ADMIN_HOST")
    admin_tokens: Annotated[tuple[AdminToken, ...], from_text(admin_token.parse)] = Field(
        default=(), validation_alias="ADMIN_TOKENS", repr=False
    )

    @field_validator("database_url")
    @classmethod
    def _has_a_database(cls, value: str | None) -> str:
        if value is None:
            raise ValueError("is not set, expected postgresql://user:password@host:port/database")
        return value

    @field_validator("admin_tokens")
    @classmethod
    def _somebody_may(cls, value: tuple[AdminToken, ...]) -> tuple[AdminToken, ...]:
        if not value:
            raise ValueError(f"is not set, {admin_token.EXPECTED}")
        return value


def variables(kind: type[DatabaseSettings]) -> dict[str, tuple[str, ...]]:
    """The names that each field of `kind` is read from, the strongest first."""
    found: dict[str, tuple[str, ...]] = {}
    for field, about in kind.model_fields.items():
        alias = about.validation_alias
        found[field] = tuple(cast(list[str], alias.choices if isinstance(alias, AliasChoices) else [alias]))
    return found


def _spelled(kind: type[DatabaseSettings], place: str) -> str:
    """The variable a problem is about. pydantic reports a field's first name whichever was set, or, for a default that
    will not do, the field itself."""
    names = next(names for field, names in variables(kind).items() if place in (field, *names))
    sources = (EnvSettingsSource(kind), DotEnvSettingsSource(kind))
    return next((each for source in sources for each in names if source.env_vars.get(each)), names[0])


def load(kind: type[S]) -> S:
    """The settings of this process. Raises SettingsError with every mistake at once."""
    try:
        return kind()
    except ValidationError as failure:
        problems = [f"{_spelled(kind, str(mistake['loc'][0]))}: {_reason(mistake)}" for mistake in failure.errors()]
        raise SettingsError(tuple(problems)) from None
    except (OSError, UnicodeDecodeError):
        raise SettingsError((".env: cannot be read, expected UTF-8 text with one NAME=value a line",)) from None


def _reason(mistake: Any) -> str:
    return str(mistake.get("ctx", {}).get("error") or mistake["msg"])


def load_or_exit(kind: type[S]) -> S:
    """`load` for the mains: a mistake becomes one line each on standard error, and status 1."""
    try:
        return load(kind)
    except SettingsError as failure:
        for problem in failure.problems:
            print(f"Failed to load configuration: {problem}", file=sys.stderr)  # noqa: T201 -- there is no log yet
        raise SystemExit(1) from None
