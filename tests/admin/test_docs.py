"""The documentation: a valid document, of exactly what is routed, on a page that needs nobody else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from openapi_spec_validator import validate

from admin.docs import FILES, POLICY
from admin.endpoint import Endpoint
from admin.openapi import document
from admin.server import ENDPOINTS
from tests.admin.conftest import Admin

DOCUMENT = json.loads(json.dumps(document(ENDPOINTS)))


def test_the_document_is_valid(admin: Admin) -> None:
    """A validator from the field finds nothing wrong with what is served."""
    served = admin.call("GET", "/docs/openapi.json", role=None).json()
    validate(served)
    assert served["openapi"].startswith("3.0")
    assert served == DOCUMENT


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_every_operation_is_told_whole(endpoint: Endpoint) -> None:
    """Each endpoint has its summary, its security, its body and parameters, and every answer with a schema."""
    operation = DOCUMENT["paths"][endpoint.path][endpoint.method.lower()]
    assert operation["summary"]
    assert operation["security"] == ([{"token": []}] if endpoint.role else [])
    assert ("requestBody" in operation) == (endpoint.body is not None)
    parameters = {(each["in"], each["name"]) for each in operation["parameters"]}
    assert (("path", "id") in parameters) == ("{id}" in endpoint.path)
    assert (("header", "Idempotency-Key") in parameters) == endpoint.is_repeatable
    assert (("header", "If-Match") in parameters) == endpoint.takes_precondition
    statuses = set(operation["responses"])
    assert str(endpoint.status) in statuses
    assert (endpoint.role is None) or statuses >= {"401", "422", "429", "500", "503"}
    for status, answer in operation["responses"].items():
        assert answer["description"]
        assert status == "304" or all("schema" in content for content in answer["content"].values())
        assert "X-Request-ID" in answer["headers"]
        assert all("example" in field for field in answer["headers"].values())
    assert all("example" in parameter for parameter in operation["parameters"])


def test_every_creation_can_be_repeated() -> None:
    """Every POST that answers 201 takes an Idempotency-Key, and every PATCH and PUT takes If-Match and has an ETag."""
    for endpoint in ENDPOINTS:
        assert endpoint.is_repeatable == (endpoint.status == 201), endpoint.name
        if endpoint.method in ("PATCH", "PUT"):
            assert endpoint.takes_precondition, endpoint.name
            assert endpoint.tagged, endpoint.name


def shapes(value: Any) -> set[str]:
    if isinstance(value, dict):
        return {str(value["$ref"])} if "$ref" in value else set().union(*map(shapes, value.values()))
    return set().union(*map(shapes, value)) if isinstance(value, list) else set()


def test_every_shape_that_is_named_is_there_and_has_an_example() -> None:
    """References lead somewhere; bodies and answers show an example."""
    known = DOCUMENT["components"]["schemas"]
    named = {reference.rpartition("/")[2] for reference in shapes(DOCUMENT)}
    assert named <= set(known)
    for endpoint in ENDPOINTS:
        for shape in (endpoint.body, endpoint.answer):
            assert shape is None or "example" in known[shape.__name__], shape


def test_examples_of_bodies_are_taken() -> None:
    """The example of each body is one that its shape accepts."""
    for endpoint in ENDPOINTS:
        if endpoint.body is not None:
            example = DOCUMENT["components"]["schemas"][endpoint.body.__name__]["example"]
            endpoint.body.model_validate_json(json.dumps(example))


def test_examples_of_queries_are_taken() -> None:
    """The example of each query parameter is one that its list accepts, and naming the list's filters is no trouble."""
    for endpoint in ENDPOINTS:
        if endpoint.query is not None:
            parameters = DOCUMENT["paths"][endpoint.path][endpoint.method.lower()]["parameters"]
            said = {each["name"]: each["example"] for each in parameters if each["in"] == "query"}
            text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}
            assert json.loads(endpoint.query.model_validate(text).model_dump_json()) == said


def test_the_page_fetches_nothing_from_outside(admin: Admin) -> None:
    """Everything that the page loads is served here, under a policy that lets nothing else in."""
    page = admin.call("GET", "/docs", role=None)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Content-Security-Policy"] == POLICY
    assert "http" not in POLICY
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert not [target for target in loaded if "//" in target]
    for name in FILES:
        assert f"/docs/{name}" in loaded
        answer = admin.call("GET", f"/docs/{name}", role=None)
        assert (answer.status_code, answer.headers["X-Content-Type-Options"]) == (200, "nosniff")
        assert len(answer.content) > 100
