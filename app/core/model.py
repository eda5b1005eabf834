"""What the gateway knows about its callers: frozen values that every other module passes around."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

Tier = Literal["basic", "premium", "enterprise"]


@dataclass(frozen=True, slots=True)
class Limits:
    """An organization's allowance: requests per UTC minute, per UTC day, and unused ones that roll over (burst)."""

    per_minute: int
    per_day: int
    burst: int


PLANS: Final[dict[str, Limits]] = {
    "basic": Limits(per_minute=100, per_day=10_000, burst=50),
    "premium": Limits(per_minute=1_000, per_day=100_000, burst=500),
    "enterprise": Limits(per_minute=10_000, per_day=1_000_000, burst=5_000),
}
"""The tiers as sold. The `plans` table holds the same numbers for the database's side; a test compares the two."""


@dataclass(frozen=True, slots=True)
class Organization:
    """Who is limited and billed. `limits` are the numbers in force: its own, or its tier's."""

    id: str
    tier: str
    limits: Limits
    active: bool = True


@dataclass(frozen=True, slots=True)
class Credential:
    """One key with everything a request needs to be judged by, as loaded from the database or from VALID_API_KEYS.

    `key_id` is None for a static key. `expires_at` is in unix seconds; it is checked on each request, so an expiry
    needs no message to take effect.
    """

    key_id: str | None
    organization: Organization
    revoked: bool = False
    expires_at: float | None = None

    def has_expired(self, now: float) -> bool:
        """Whether the key's own end has passed at `now` (unix seconds)."""
        return self.expires_at is not None and now >= self.expires_at


LimitType = Literal["minute", "daily"]
Mode = Literal["redis", "local", "open", "closed"]


class Verdict(NamedTuple):
    """What the limiter decided about one request, with every figure after the decision (made once a request: a tuple).

    `refused_by` is None for an admitted request. `limits` are the numbers that were applied: the organization's own,
    or this worker's share of them while `mode` is not "redis". Times are unix seconds; `now` is the whole second, by
    the clock that decided (Redis's, or this machine's while Redis is away): `reset - now` is what Retry-After says.
    """

    limits: Limits
    minute_used: int
    daily_used: int
    remaining_minute: int
    remaining_day: int
    burst_remaining: int
    now: int
    reset_minute: int
    reset_day: int
    refused_by: LimitType | None = None
    mode: Mode = "redis"

    @property
    def reset_at(self) -> int:
        """When the window that refused opens again (the minute's for an admitted request)."""
        return self.reset_day if self.refused_by == "daily" else self.reset_minute

    @property
    def retry_after(self) -> int:
        """Seconds until `reset_at`, at least 1."""
        return max(1, self.reset_at - self.now)


@dataclass(frozen=True, slots=True)
class Change:
    """Something that cached credentials may no longer rely on. Names the thing, never its new state.

    `kind` "key": one API key (created, changed, revoked); "organization": its tier, limits or activity; "all":
    everything (an operator's flush). `id` is the UUID as text, empty for "all".
    """

    kind: Literal["key", "organization", "all"]
    id: str = ""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is: TCP (`host`, `port`), or a unix socket when `path` is set. `verify` False: any certificate."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = None
    tls: bool = False
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Backend:
    """One target of a service: where requests for `name` are proxied to. A service may have several (BACKEND_URLS).

    `base_path` is prepended to every target, without a trailing slash.
    """

    name: str
    scheme: Literal["http", "https"]
    host: str
    port: int
    base_path: str = ""
    authority: bytes = field(init=False, repr=False, compare=False)
    """The Host header's value (RFC 9110 section 7.2): without the port where it is the scheme's own."""
    _hash: int = field(init=False, repr=False, compare=False)
    """Made once: each request looks its backend's connections up."""

    def __post_init__(self) -> None:
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_default = self.port == {"http": 80, "https": 443}[self.scheme]
        object.__setattr__(self, "authority", (host if is_default else f"{host}:{self.port}").encode())
        object.__setattr__(self, "_hash", hash((self.name, self.host, self.port, self.base_path)))

    def __hash__(self) -> int:
        return self._hash
