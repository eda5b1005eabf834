"""The public app: Sanic with our door, and the order of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sanic import Sanic
from sanic.router import Router

from app import health
from app.admission import Admission
from app.core.process.settings import GatewaySettings
from app.errors import EnvelopeErrorHandler
from app.middleware import KeyQuestion, admit, authenticate, identify, stamp
from app.proxy import proxy
from app.request import GatewayRequest
from app.services import Services

REQUEST_STEPS: Final = [
    identify,  # first: every answer and log line carries the id, refusals too
    authenticate,  # before admit: whose limits apply is only known now, and strangers use up nobody's
    admit,  # last: what gets past it counts, whatever becomes of it
]
RESPONSE_STEPS: Final = [
    stamp,  # the only one: ids and limits belong on every answer, a refusal's and a backend's alike
]
PUBLIC: Final = {"/health": health.health, "/health/ready": health.ready, "/health/live": health.live}
PUBLIC_TARGETS: Final = frozenset(path.encode() for path in PUBLIC)
SWEEP_SECONDS: Final = 0.25


class GatewayRouter(Router):
    """The health endpoints for GET and HEAD; everything else, whatever its method and path, is proxied."""

    proxy_route: Any = None

    def finalize(self, *args: Any, **kwargs: Any) -> None:
        super().finalize(*args, **kwargs)
        self.proxy_route = next(route for route in self.routes if route.ctx.is_public is False)

    def get(  # type: ignore[override]  # Sanic's is wrapped in a cache
        self, path: str, method: str, host: str | None
    ) -> tuple[Any, Any, dict[str, Any]]:
        if path in PUBLIC and method in ("GET", "HEAD"):
            found: tuple[Any, Any, dict[str, Any]] = super().get(path, "GET", host)
            return found
        return self.proxy_route, self.proxy_route.handler, {}


class GatewayApp(Sanic[Any, Any]):
    """Sanic with a shorter way through the same steps: no signals, which nobody listens to here, and no look-ups."""

    async def handle_request(self, request: GatewayRequest) -> None:  # type: ignore[override]
        """Route, request middleware, handler, response middleware, answer. What is raised becomes an answer too."""
        await self.finish(request, self.go_on(request))

    async def go_on(
        self, request: GatewayRequest, steps_done: int = 0, question: KeyQuestion | Admission | None = None
    ) -> Any:
        """The middleware after the first `steps_done`, and the handler; `question`: what the last of those had to ask.

        Returns the response, or None when the handler has sent it already.
        """
        if request.route is None:
            request.route, _, _ = self.router.get(request.path, request.method, None)
            request.context.is_public = getattr(request.route.ctx, "is_public", False)
        response = None if question is None else await _answered(question)
        for step in [*request.route.extra.request_middleware][steps_done:]:
            if response is not None:
                return response
            response = await _answered(step.func(request))
        return await self._handle(request) if response is None else response

    async def _handle(self, request: GatewayRequest) -> Any:
        handler = request.route.handler
        if not (request.route.extra.ignore_body or hasattr(handler, "is_stream")):
            await request.receive_body()
        response = handler(request)
        return await response if hasattr(response, "__await__") else response

    async def finish(self, request: GatewayRequest, way: Awaitable[Any]) -> None:
        """Sends what `way` returns; what it raises becomes an answer too."""
        try:
            response = await way
            if response is not None:
                response = await request.respond(response)
                await response.send(end_stream=True)
        except Exception as error:  # noqa: BLE001 - Sanic's error handler is where they all end
            await self.handle_exception(request, error, False)

    router: GatewayRouter

    # --- for the fast path ---

    @property
    def has_fast_path(self) -> bool:
        """Whether nobody has added middleware, which may do anything."""
        extra = self.router.proxy_route.extra
        steps = [[step.func for step in each] for each in (extra.request_middleware, extra.response_middleware)]
        return steps == [REQUEST_STEPS, RESPONSE_STEPS]


async def _answered(step: Any) -> Any:
    """What a step returned, once it is known: middleware of ours asks, middleware of others may be a coroutine."""
    if isinstance(step, KeyQuestion | Admission):
        answer: Any = await step.answer()
        return step.result(answer)
    return await step if hasattr(step, "__await__") else step


def create_app(settings: GatewaySettings, write: Callable[[bytes], None], name: str = "gateway") -> Sanic[Any, Any]:
    """One worker's app. `write` takes finished log lines. Its listeners open and close what the requests need."""
    app: Sanic[Any, Any] = GatewayApp(
        name,
        router=GatewayRouter(),
        request_class=GatewayRequest,
        error_handler=EnvelopeErrorHandler(),
        configure_logging=False,
    )
    app.config.update(
        ACCESS_LOG=False,
        AUTO_EXTEND=False,
        REQUEST_MAX_SIZE=settings.request_bytes_max,
        GRACEFUL_TCP_CLOSE_TIMEOUT=60.0,
    )
    for path, handler in PUBLIC.items():
        app.add_route(handler, path, methods=["GET"], name=handler.__name__, ignore_body=True, ctx_is_public=True)
    app.add_route(proxy, "/<target:path>", methods=["GET"], name="proxy", stream=True, ctx_is_public=False)
    request_step: Any  # may also return what is awaited for its answer, which Sanic's types do not foresee
    for request_step in REQUEST_STEPS:
        app.register_middleware(request_step, "request")
    for response_step in RESPONSE_STEPS:
        app.register_middleware(response_step, "response")
    _listen(app, settings, write)
    return app


def _listen(app: Sanic[Any, Any], settings: GatewaySettings, write: Callable[[bytes], None]) -> None:
    """Opens the services before the first connection, and closes them after the last."""

    async def open_services(app: Sanic[Any, Any]) -> None:
        app.ctx = Services(settings, write)
        await app.ctx.__aenter__()

    async def close_services(app: Sanic[Any, Any]) -> None:
        await app.ctx.__aexit__(None, None, None)

    app.register_listener(open_services, "before_server_start")
    app.register_listener(close_services, "after_server_stop")


async def sweep(connections: set[Any]) -> None:
    """Ends what has waited too long for its client; one loop for all connections instead of a timer for each."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        now = loop.time()
        for connection in [connection for connection in connections if connection.deadline <= now]:
            connection.check_timeouts(now)
