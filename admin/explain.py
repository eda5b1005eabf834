"""What a gateway would answer to a key now, and why, for whoever has to tell a customer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from loguru import logger
from sanic import HTTPResponse

from admin import answers, buckets, limits, organizations
from admin.desk import Desk
from admin.outlook import outlook, status_of
from admin.request import AdminRequest
from admin.services import Services
from admin.shapes.explanation import Question
from app.core.changes.roster import Heard
from app.core.data import ledger
from app.core.data.database import Connection
from app.core.data.records import KeyRecord, OrganizationRecord
from app.core.data.rules import NotFound
from app.core.keys.credential import digest
from app.core.model import Credential, Organization, Verdict
from app.core.redis.link import RedisRefusal, RedisUnavailable


@dataclass(frozen=True, slots=True)
class _Found:
    """The key as the database has it; all None for one that it does not have, but for the digest."""

    digest: bytes
    credential: Credential | None = None
    key: KeyRecord | None = None
    organization: OrganizationRecord | None = None


async def explain(request: AdminRequest, desk: Desk, body: Question) -> HTTPResponse:
    """Tell what a gateway would answer to a key now, and why.

    Judged by the database and by what the gateways have counted, with the gateways' own rules; nothing is counted or
    changed by it. `workers` says which gateway workers hold the key in memory.
    """
    services = desk.services
    found = await _find(desk, body)
    heard = await _ask(services, found.digest)
    credential = _static(heard) or found.credential
    bucket = await _look(services, credential.organization) if credential is not None else None
    now = time.time()
    return answers.json(
        {
            "would_answer": outlook(credential, found.key, bucket, now, asked=bool(heard and heard.answers))._asdict(),
            "key": found.key.as_json() if found.key else None,
            "organization": organizations.shown(found.organization) if found.organization else None,
            "limits": limits.shown(found.organization) if found.organization else None,
            "bucket": buckets.shown(bucket) if bucket else None,
            "workers": _shown(heard, now) if heard else None,
        }
    )


async def _find(desk: Desk, question: Question) -> _Found:
    """Raises NotFound for a key_id of nobody's; an api_key of nobody's is an answer."""
    store = desk.services.database
    if question.key_id:
        found = await store.credential_by_id(question.key_id)
        if found is None:
            raise NotFound(f"key {question.key_id} not found")
        key_digest, credential = found
    else:
        key_digest = digest(question.api_key)
        known = await store.credential_by_digest(key_digest)
        if known is None:
            return _Found(key_digest)
        credential = known

    async def records(connection: Connection) -> tuple[KeyRecord, OrganizationRecord]:
        key = await ledger.key(connection, str(credential.key_id))
        return key, await ledger.organization(connection, key.organization_id)

    return _Found(key_digest, credential, *await desk.read(records))


async def _ask(services: Services, key_digest: bytes) -> Heard | None:
    """What the workers hold; None when Redis cannot be asked, which makes the answer shorter and no failure."""
    try:
        return await services.roster.ask(key_digest)
    except (RedisUnavailable, RedisRefusal) as failure:
        logger.debug(f"the gateway workers cannot be asked: {failure}")
        return None


async def _look(services: Services, organization: Organization) -> Verdict | None:
    try:
        return await services.gauge.live(organization)
    except (RedisUnavailable, RedisRefusal) as failure:
        logger.debug(f"the bucket cannot be read: {failure}")
        return None


def _static(heard: Heard | None) -> Credential | None:
    """A key of VALID_API_KEYS is the gateways' to know; they look there first, and so does this."""
    holdings = [answer.holding for answer in heard.answers] if heard else []
    return next((holding.credential for holding in holdings if holding.held_as == "static"), None)


def _shown(heard: Heard, now: float) -> dict[str, Any]:
    held = [
        {
            "node": answer.node,
            "held_as": answer.holding.held_as,
            "would_answer": status_of(answer.holding, now),
        }
        for answer in heard.answers
    ]
    return {"asked": heard.asked, "answers": held}
