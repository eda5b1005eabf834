"""Who may: bearer tokens and their roles."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Final

from loguru import logger

from admin.errors import MalformedToken, RoleTooLow, TooManyAttempts, UnknownToken
from admin.throttle import WAIT_SECONDS_MAX, Throttle
from app.core.errors import MissingCredential
from app.core.process.admin_token import AdminToken, Role, digest, holder

TOKEN_CHARACTERS_MAX: Final = 512


class Access:
    """Finds out who asks. Only digests are compared and kept; only addresses are logged."""

    def __init__(self, tokens: Sequence[AdminToken], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._tokens = tokens
        self._throttle = Throttle(monotonic)

    async def caller(self, authorization: Sequence[str], address: str) -> AdminToken:
        """Whose token the Authorization fields carry. Raises MissingCredential, MalformedToken, UnknownToken after the
        wait that the address has earned, or TooManyAttempts at once."""
        if not authorization:
            raise MissingCredential
        scheme, _, token = authorization[0].partition(" ")
        token = token.strip(" ")
        if len(authorization) != 1 or scheme.lower() != "bearer" or not token or " " in token:
            raise MalformedToken
        presented = digest(token[: TOKEN_CHARACTERS_MAX + 1])
        await self._wait(address, presented)
        found = holder(self._tokens, presented)
        if found is None:
            failures = self._throttle.failed(address)
            logger.bind(client_ip=address, failures=failures).warning("a wrong admin token was presented")
            raise UnknownToken
        self._throttle.succeeded(address, presented)
        return found

    async def _wait(self, address: str, presented: bytes) -> None:
        seconds = self._throttle.wait_seconds(address, presented)
        if seconds > WAIT_SECONDS_MAX:
            logger.bind(client_ip=address).warning("too many wrong admin tokens: an attempt was not taken")
            raise TooManyAttempts(math.ceil(seconds))
        if seconds:
            await asyncio.sleep(seconds)


def require(caller: AdminToken, role: Role) -> None:
    """Raises RoleTooLow."""
    if not caller.may(role):
        raise RoleTooLow(caller.role, role)
