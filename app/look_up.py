"""The key that memory does not hold: asked for in the database, unless too much is guessed from where it came."""

from __future__ import annotations

from app.context import Context
from app.core.errors import TooManyFailedKeys
from app.core.keys.keyring import UNKNOWN, Found


async def look_up(context: Context, key: bytes) -> Found | TooManyFailedKeys:
    """Beyond memory, unless too many wrong keys came from this address: then the database is not asked.

    Raises AuthenticationUnavailable.
    """
    services, address = context.services, context.client_ip
    ring, failed_keys = services.ring, services.failed_keys
    wait_seconds = failed_keys.wait_seconds(address)
    if wait_seconds and not ring.has_met(key):
        return TooManyFailedKeys(wait_seconds)
    is_repeated = ring.is_reading(key)
    found: Found = await ring.fetch(key)
    if found is UNKNOWN and not is_repeated:
        failed_keys.note(address)
    return found
