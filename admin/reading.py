"""What a request says, as the types that its handler asks for; or every problem of it at once."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError

from admin.desk import Desk, Repeat
from admin.endpoint import Endpoint
from admin.errors import Invalid, Place, Problem, UnsupportedMediaType
from admin.precondition import Precondition
from admin.request import AdminRequest, UnitId
from app.core.data.idempotency import Attempt
from app.core.data.records import Actor
from app.core.errors import MalformedRequest

PROBLEMS_MAX: Final = 50
NAME_CHARACTERS_MAX: Final = 80
"""Of an unknown field's name that its problem repeats."""
_UUID: Final = re.compile("[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_JSON_TYPE: Final = re.compile(r"application/(?:json|merge-patch\+json)[ \t]*(?:;.*)?", re.IGNORECASE)
_REPEAT_KEY: Final = re.compile("[!-~]{1,255}", re.ASCII)
_WORDING: Final = {"missing": "is missing", "extra_forbidden": "is unknown here"}


def read(request: AdminRequest, endpoint: Endpoint) -> None:
    """Fills `request.ctx.inputs`. Raises Invalid, UnsupportedMediaType, or MalformedRequest for what is no JSON."""
    problems: list[Problem] = []
    inputs = request.ctx.inputs
    if endpoint.has_id:
        inputs[UnitId] = _unit_id(request, problems)
    if endpoint.role is not None:
        query = _query(request, problems, endpoint.query)
        if endpoint.query is not None:
            inputs[endpoint.query] = query
    if endpoint.takes_precondition:
        inputs[Precondition] = _precondition(request, problems)
    body = None
    if endpoint.body is not None:
        body = inputs[endpoint.body] = _body(request, problems, endpoint.body)
    elif endpoint.role is not None and request.body not in (b"", b"{}"):  # clients like to send {} for nothing
        problems.append(Problem(("body",), "this endpoint takes none"))
    if endpoint.is_repeatable:
        inputs[Repeat] = _repeat(request, problems, body)
    if problems:
        raise Invalid(problems[:PROBLEMS_MAX])
    if (caller := request.ctx.caller) is not None:
        inputs[Desk] = Desk(request.app.ctx.services, Actor(caller.name, request.ctx.client_ip))


def _unit_id(request: AdminRequest, problems: list[Problem]) -> UnitId:
    text = request.match_info.pop("id")
    if not _UUID.fullmatch(text):
        problems.append(Problem(("path", "id"), "is no UUID"))
    return UnitId(text.lower())


def _query(request: AdminRequest, problems: list[Problem], kind: type[BaseModel] | None) -> BaseModel | None:
    try:
        pairs = parse_qsl(request.query_string, keep_blank_values=True, errors="strict", max_num_fields=PROBLEMS_MAX)
    except ValueError:
        problems.append(Problem(("query",), "is not UTF-8, or has too many fields"))
        return None
    given = dict(pairs)
    names = [name for name, _ in pairs]
    problems += [Problem(("query", _short(name)), "stands there twice") for name in given if names.count(name) > 1]
    if kind is None:
        problems += [Problem(("query", _short(name)), _WORDING["extra_forbidden"]) for name in given]
        return None
    try:
        return kind.model_validate(given)
    except ValidationError as failure:
        problems += _problems("query", failure)
        return None


def _precondition(request: AdminRequest, problems: list[Problem]) -> Precondition:
    fields = request.headers.getall("if-match", [])
    try:
        return Precondition.parse(", ".join(fields)) if fields else Precondition()
    except ValueError as reason:
        problems.append(Problem(("header", "If-Match"), str(reason)))
        return Precondition()


def _body(request: AdminRequest, problems: list[Problem], kind: type[BaseModel]) -> BaseModel | None:
    if request.body and not _JSON_TYPE.fullmatch(request.headers.get("content-type", "")):
        raise UnsupportedMediaType
    try:
        return kind.model_validate_json(request.body or b"{}")
    except ValidationError as failure:
        if failure.errors(include_url=False)[0]["type"] == "json_invalid":
            raise MalformedRequest("the body is no JSON") from None
        problems += _problems("body", failure)
        return None


def _repeat(request: AdminRequest, problems: list[Problem], body: BaseModel | None) -> Repeat:
    fields = request.headers.getall("idempotency-key", [])
    if not fields:
        return Repeat(None)
    if len(fields) > 1 or not _REPEAT_KEY.fullmatch(fields[0]):
        problems.append(Problem(("header", "Idempotency-Key"), "expected 1 to 255 visible ASCII characters"))
        return Repeat(None)
    caller = request.ctx.caller
    if body is None or caller is None:
        return Repeat(None)
    said = f"{request.method} {request.path} {body.model_dump_json()}"
    return Repeat(Attempt(caller.name, fields[0], hashlib.sha256(said.encode()).hexdigest()))


def _problems(where: str, failure: ValidationError) -> list[Problem]:
    return [_problem(where, mistake) for mistake in failure.errors(include_url=False, include_input=False)]


def _problem(where: str, mistake: Any) -> Problem:
    place: Place = (where, *(_short(step) if isinstance(step, str) else step for step in mistake["loc"]))
    reason = mistake.get("ctx", {}).get("error")
    return Problem(place, _WORDING.get(mistake["type"]) or str(reason or mistake["msg"]))


def _short(name: str) -> str:
    return name if len(name) <= NAME_CHARACTERS_MAX else f"{name[:NAME_CHARACTERS_MAX]}…"
