"""The admin app: the table of endpoints, of which routing and the OpenAPI document are made, and the order of steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from sanic import Sanic
from sanic.exceptions import NotFound
from sanic.router import Router
from sanic_ext import Extend
from sanic_ext.extensions.injection.extension import InjectionExtension

from admin import audit, buckets, docs, explain, gateways, health, keys, limits, organizations
from admin.desk import Desk
from admin.endpoint import Endpoint
from admin.errors import EnvelopeErrorHandler
from admin.request import AdminRequest
from admin.services import Services
from admin.shapes.audit import AuditPage
from admin.shapes.bucket import BucketAnswer, ResetAnswer
from admin.shapes.explanation import ExplanationAnswer
from admin.shapes.gateway import InvalidationAnswer, WorkerList
from admin.shapes.health import HealthAnswer, LiveAnswer, ReadyAnswer
from admin.shapes.key import ChangedKey, IssuedKey, KeyAnswer, KeyPage, RotatedKey
from admin.shapes.organization import (
    ChangedLimits,
    ChangedOrganization,
    LimitsAnswer,
    OrganizationAnswer,
    OrganizationPage,
)
from admin.steps import authorize, identify, read, stamp
from app.core.process.settings import AdminSettings

BODY_BYTES_MAX: Final = 65_536
SLASHES_MAX: Final = 16
ORGANIZATION: Final = "/v1/organizations/{id}"
KEY: Final = "/v1/keys/{id}"

# fmt: off
ENDPOINTS: Final = (
    Endpoint("POST", "/v1/organizations", "editor", organizations.create, ChangedOrganization, 201, tagged=True),
    Endpoint("GET", "/v1/organizations", "viewer", organizations.list_all, OrganizationPage),
    Endpoint("GET", ORGANIZATION, "viewer", organizations.find, OrganizationAnswer, tagged=True,
             answers_unchanged=True),
    Endpoint("PATCH", ORGANIZATION, "editor", organizations.change, ChangedOrganization, tagged=True),
    Endpoint("GET", f"{ORGANIZATION}/limits", "viewer", limits.find, LimitsAnswer, tagged=True,
             answers_unchanged=True),
    Endpoint("PUT", f"{ORGANIZATION}/limits", "editor", limits.set_own, ChangedLimits, tagged=True),
    Endpoint("DELETE", f"{ORGANIZATION}/limits", "editor", limits.use_plan, ChangedLimits, tagged=True),
    Endpoint("POST", "/v1/keys", "editor", keys.create, IssuedKey, 201, tagged=True,
             conflict="The organization is inactive."),
    Endpoint("GET", "/v1/keys", "viewer", keys.list_all, KeyPage),
    Endpoint("GET", KEY, "viewer", keys.find, KeyAnswer, tagged=True),
    Endpoint("PATCH", KEY, "editor", keys.change, ChangedKey, tagged=True, conflict="The key is revoked."),
    Endpoint("POST", f"{KEY}/revoke", "editor", keys.revoke, ChangedKey, tagged=True,
             conflict="The key is revoked already."),
    Endpoint("POST", f"{KEY}/rotate", "editor", keys.rotate, RotatedKey, 201, tagged=True,
             conflict="The key has ended or was rotated already, or its organization is inactive."),
    Endpoint("GET", f"{ORGANIZATION}/limits/live", "viewer", buckets.live, BucketAnswer, needs_redis=True),
    Endpoint("POST", f"{ORGANIZATION}/limits/reset", "owner", buckets.reset, ResetAnswer, needs_redis=True),
    Endpoint("POST", "/v1/cache/invalidate", "editor", gateways.invalidate, InvalidationAnswer),
    Endpoint("GET", "/v1/gateways", "viewer", gateways.list_live, WorkerList, needs_redis=True),
    Endpoint("POST", "/v1/explain", "viewer", explain.explain, ExplanationAnswer),
    Endpoint("GET", "/v1/audit", "owner", audit.list_all, AuditPage),
    Endpoint("GET", "/health", None, health.health, HealthAnswer),
    Endpoint("GET", "/health/ready", None, health.ready, ReadyAnswer),
    Endpoint("GET", "/health/live", None, health.live, LiveAnswer),
    Endpoint("GET", "/docs", None, docs.page, None, media="text/html"),
    Endpoint("GET", "/docs/openapi.json", None, docs.document, None),
)
# fmt: on
REQUEST_STEPS: Final = [
    identify,  # first: every answer and log line carries the id, refusals too
    authorize,  # before read: strangers learn nothing about shapes and ids
    read,  # last: every problem of the request at once, before anything is done
]


class AdminRouter(Router):
    """Sanic's, for targets that it can take: it strips slashes one call deeper each, so a thousand end in a 500."""

    def get(  # type: ignore[override]  # Sanic's is wrapped in a cache
        self, path: str, method: str, host: str | None
    ) -> tuple[Any, Any, dict[str, Any]]:
        if path.count("/") > SLASHES_MAX:
            raise NotFound
        found: tuple[Any, Any, dict[str, Any]] = super().get(path, method, host)
        return found


def create_app(settings: AdminSettings, name: str = "admin") -> Sanic[Any, Any]:
    """The app. Its listeners open and close what the requests need, as `app.ctx.services`."""
    app: Sanic[Any, Any] = Sanic(
        name,
        router=AdminRouter(),
        request_class=AdminRequest,  # type: ignore[arg-type]  # Sanic names its own Request here, whatever its context
        error_handler=EnvelopeErrorHandler(),
        strict_slashes=True,
        configure_logging=False,
    )
    app.config.update(
        ACCESS_LOG=False,
        REQUEST_MAX_SIZE=BODY_BYTES_MAX,
        KEEP_ALIVE_TIMEOUT=65,
        REQUEST_TIMEOUT=15,
        RESPONSE_TIMEOUT=30,
        # After the steps have run, instead of after routing: what is put in is what they have found.
        INJECTION_SIGNAL="http.handler.before",
    )
    # Only its injection. The rest answers OPTIONS and HEAD by itself, allows other origins, and loads pages from afar.
    Extend(app, extensions=[InjectionExtension], built_in_extensions=False)
    _route(app, ENDPOINTS)
    docs.serve_files(app, ENDPOINTS)
    for step in REQUEST_STEPS:
        app.register_middleware(step, "request")
    app.register_middleware(stamp, "response")
    _listen(app, settings)
    return app


def _route(app: Sanic[Any, Any], endpoints: Iterable[Endpoint]) -> None:
    kinds: set[type] = {Desk}
    for endpoint in endpoints:
        methods = ["GET", "HEAD"] if endpoint.path.startswith("/health") else [endpoint.method]
        path = endpoint.path.replace("{id}", "<id:str>")
        app.add_route(
            endpoint.handler, path, methods=methods, name=endpoint.name.replace(".", "_"), ctx_endpoint=endpoint
        )
        kinds.update(endpoint.wanted.values())
    for kind in kinds:
        app.ext.add_dependency(kind, _input(kind))


def _input(kind: type) -> Callable[..., Awaitable[Any]]:
    """What sanic-ext calls for a parameter of this type."""

    async def find(request: AdminRequest) -> Any:
        return request.ctx.inputs[kind]

    return find


def _listen(app: Sanic[Any, Any], settings: AdminSettings) -> None:
    """Opens the services before the first connection, and closes them after the last."""

    async def open_services(app: Sanic[Any, Any]) -> None:
        app.ctx.services = Services(settings)
        await app.ctx.services.__aenter__()

    async def close_services(app: Sanic[Any, Any]) -> None:
        await app.ctx.services.__aexit__(None, None, None)

    app.register_listener(open_services, "before_server_start")
    app.register_listener(close_services, "after_server_stop")
