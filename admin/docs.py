"""/docs: the OpenAPI document, and Swagger UI from a wheel to read and try it. Nothing is fetched from elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
from sanic import HTTPResponse, Sanic
from swagger_ui_bundle import swagger_ui_path  # type: ignore[import-untyped]

from admin import openapi
from admin.endpoint import Endpoint
from admin.request import AdminRequest
from app.core.envelope import JSON

PAGE: Final = (Path(__file__).parent / "pages" / "docs.html").read_bytes()
FILES: Final = {
    "docs.js": (Path(__file__).parent / "pages" / "docs.js", "text/javascript; charset=utf-8"),
    "swagger-ui-bundle.js": (Path(swagger_ui_path) / "swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    "swagger-ui.css": (Path(swagger_ui_path) / "swagger-ui.css", "text/css; charset=utf-8"),
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets styles from its script, and its pictures are data URLs; everything else has to come from here."""
CACHE: Final = "public, max-age=86400"


async def page(request: AdminRequest) -> HTTPResponse:
    """A page to read this document on, and to try the endpoints with a token."""
    fields = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
    return HTTPResponse(PAGE, headers=fields, content_type="text/html; charset=utf-8")


async def document(request: AdminRequest) -> HTTPResponse:
    """This document: OpenAPI 3.0, made from the table that requests are routed by."""
    return HTTPResponse(request.app.ctx.document, content_type=JSON)


def serve_files(app: Sanic[Any, Any], endpoints: Sequence[Endpoint]) -> None:
    """Adds the document, and what the page loads. Both are read once, at the start."""
    app.ctx.document = orjson.dumps(openapi.document(endpoints))
    for name, (path, kind) in FILES.items():
        app.add_route(_file(path.read_bytes(), kind), f"/docs/{name}", methods=["GET"], name=f"file_{path.stem}")


def _file(content: bytes, kind: str) -> Callable[[AdminRequest], Coroutine[Any, Any, HTTPResponse]]:
    return functools.partial(_send, content=content, kind=kind)


async def _send(request: AdminRequest, content: bytes, kind: str) -> HTTPResponse:
    return HTTPResponse(content, headers={"Cache-Control": CACHE}, content_type=kind)
