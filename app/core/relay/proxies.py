"""Whose word about the client's address is believed: TRUSTED_PROXIES and the walk over X-Forwarded-For."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from app.core.process.redaction import redact

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
REMEMBERED_MAX = 4096
"""Answers of `trusts` that are kept. Routers have tens of addresses; the bound is against everybody else."""


def address(text: str) -> str | None:
    """The IP address in one X-Forwarded-For entry, in its canonical spelling, or None.

    Routers write `203.0.113.7`, `203.0.113.7:52100`, `2001:db8::7`, `[2001:db8::7]` and `[2001:db8::7]:52100`. An IPv4
    address in IPv6 clothes (`::ffff:203.0.113.7`, what a dual-stack socket reports) is the IPv4 address. A scoped
    address (`fe80::1%eth0`) means something on one host only, so it is none.
    """
    bare = text.strip()
    if bare.startswith("["):
        bare, closed, rest = bare[1:].partition("]")
        if not closed or (rest and not _is_port(rest)):
            return None
    elif bare.count(":") == 1:
        bare, colon, rest = bare.partition(":")
        if not _is_port(colon + rest):
            return None
    try:
        found = ipaddress.ip_address(bare)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        if found.scope_id is not None:
            return None
        return str(found.ipv4_mapped or found)
    return str(found)


def subscriber(ip: str) -> str:
    """Who counts as one client: an IPv4 address, or an IPv6 /64, since that is what a single line or machine is given
    (RFC 6177). Text that is no address stands for itself."""
    if ":" not in ip:
        return ip
    canonical = address(ip)
    if canonical is None or ":" not in canonical:
        return canonical or ip
    return str(ipaddress.ip_network((canonical, 64), strict=False))


def _is_port(text: str) -> bool:
    return text[:1] == ":" and text[1:].isascii() and text[1:].isdigit()


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The routers in front of the gateway. `everyone` (`*`): whoever connects is the router, such as on Heroku."""

    networks: tuple[Network, ...] = ()
    everyone: bool = False
    _remembered: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `address[,network…]` or `*`. Raises ValueError with the entry that is neither."""
        entries = [entry.strip() for entry in text.split(",")]
        if entries == ["*"]:
            return cls(everyone=True)
        return cls(tuple(_network(entry) for entry in entries))

    def trusts(self, ip: str) -> bool:
        """Whether the headers of a peer at `ip` are believed. Text that is no address is trusted by `*` only."""
        if self.everyone or not self.networks:
            return self.everyone
        known = self._remembered.get(ip)
        if known is None:
            if len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.clear()
            known = self._remembered[ip] = self._contains(ip)
        return known

    def _contains(self, ip: str) -> bool:
        canonical = address(ip)
        if canonical is None:
            return False
        wanted = ipaddress.ip_address(canonical)
        return any(wanted in network for network in self.networks)

    def client(self, peer: str, forwarded_for: Sequence[str]) -> str:
        """The address a request came from: the rightmost one that no trusted router vouches for as its own.

        `forwarded_for` holds the values of the X-Forwarded-For lines in their order. Each router appends the address it
        saw, so the list is believed from its right end, only as far as trusted routers wrote it; an entry that is no
        address ends the walk. With `*` the routers are unknown, so just the last entry counts. Answers an address, or
        `peer` as it was given.
        """
        if not forwarded_for or not self.trusts(peer):
            return peer
        found = peer
        for entry in reversed(",".join(forwarded_for).split(",")):
            ip = address(entry)
            if ip is None:
                break
            found = ip
            if self.everyone or not self.trusts(ip):
                break
        return found


def _network(entry: str) -> Network:
    try:
        return ipaddress.ip_network(entry, strict=False)  # 10.1.2.3/8 is how people write 10.0.0.0/8
    except ValueError:
        raise ValueError(
            f"{redact(entry)[:60]!r} is no IP address or network, expected addresses and networks, or '*'"
        ) from None
