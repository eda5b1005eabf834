"""A backend to try the gateway with: `python -m tools.demo_backend --port 3000`.

Every path answers JSON that says what arrived. Some do more, alone or behind one segment (`/stream`, `/demo/stream`):
`/stream?count=10&seconds=0.3` sends a line at a time, `/events` the same as server-sent events, `/slow?seconds=5` waits
first, `/status/418` answers with that status, `/bytes/1000000` sends that many bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Awaitable, Callable

import click
from sanic import Request, Sanic
from sanic.compat import Header
from sanic.exceptions import BadRequest
from sanic.response import HTTPResponse, json

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SECONDS_MAX = 300
COUNT_MAX = 1_000
BYTES_MAX = 1024 * 1024 * 1024
BLOCK = b"0123456789abcdef" * 4096

Answer = Callable[[Request, str], Awaitable[HTTPResponse | None]]


def _number(text: str | None, default: float, most: float) -> float:
    """A figure of the query or the path, between 0 and `most`. Raises a 400."""
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise BadRequest(f"expected a number from 0 to {most:g}", quiet=True)
    return value


async def _what_arrived(request: Request) -> dict[str, object]:
    """The request in words. The body is hashed as it streams in, so its size does not matter."""
    size, digest = 0, hashlib.sha256()
    while (part := await request.stream.read()) is not None:  # type: ignore[union-attr]
        size += len(part)
        digest.update(part)
    return {
        "service": "demo",
        "method": request.method,
        "target": request.raw_url.decode("latin-1"),
        "headers": [[name, value] for name, value in request.headers.items()],
        "body": {"bytes": size, "sha256": digest.hexdigest()},
        "organization": request.headers.get("x-organization-id"),
        "tier": request.headers.get("x-plan-tier"),
        "request_id": request.headers.get("x-request-id"),
    }


async def echo(request: Request, rest: str) -> HTTPResponse:
    return json(await _what_arrived(request))


async def status(request: Request, rest: str) -> HTTPResponse:
    code = int(_number(rest, 200, 599))
    if code < 200:
        raise BadRequest("expected a status from 200 to 599", quiet=True)
    return json(await _what_arrived(request), status=code)


async def slow(request: Request, rest: str) -> HTTPResponse:
    await asyncio.sleep(_number(request.args.get("seconds"), 1.0, SECONDS_MAX))
    return json(await _what_arrived(request))


async def stream(request: Request, rest: str) -> HTTPResponse | None:
    return await _lines(request, "text/plain; charset=utf-8", "line {}\n")


async def events(request: Request, rest: str) -> HTTPResponse | None:
    return await _lines(request, "text/event-stream", 'id: {0}\ndata: {{"number": {0}}}\n\n')


async def _lines(request: Request, content_type: str, form: str) -> HTTPResponse | None:
    count = int(_number(request.args.get("count"), 10, COUNT_MAX))
    pause_seconds = _number(request.args.get("seconds"), 0.3, SECONDS_MAX)
    if request.method == "HEAD":
        return HTTPResponse(content_type=content_type)
    response = await request.respond(content_type=content_type)
    for number in range(1, count + 1):
        await response.send(form.format(number))
        await asyncio.sleep(pause_seconds)
    await response.eof()
    return None


async def some_bytes(request: Request, rest: str) -> HTTPResponse | None:
    left = int(_number(rest, 1024, BYTES_MAX))
    headers = Header({"content-length": str(left)})
    if request.method == "HEAD":
        return HTTPResponse(headers=headers, content_type="application/octet-stream")
    response = await request.respond(headers=headers, content_type="application/octet-stream")
    while left:
        await response.send(BLOCK[:left])
        left -= min(left, len(BLOCK))
    await response.eof()
    return None


PLACES: dict[str, Answer] = {"stream": stream, "events": events, "slow": slow, "status": status, "bytes": some_bytes}


def place(path: str) -> tuple[Answer, str]:
    """What answers `path`, and the path's rest: the first or second segment may be a place, everything else echoes."""
    segments = path.strip("/").split("/")
    for at, segment in enumerate(segments[:2]):
        if segment in PLACES:
            return PLACES[segment], "/".join(segments[at + 1 :])
    return echo, ""


async def answer(request: Request, path: str = "") -> HTTPResponse | None:
    handler, rest = place(request.path)
    return await handler(request, rest)


def create_app() -> Sanic:  # type: ignore[type-arg]
    app = Sanic("demo_backend", configure_logging=False)
    app.config.FALLBACK_ERROR_FORMAT = "json"
    app.config.RESPONSE_TIMEOUT = SECONDS_MAX + 5
    app.config.KEEP_ALIVE_TIMEOUT = 75  # longer than a gateway keeps idle connections, so that it closes first
    for route in ("/", "/<path:path>"):
        app.add_route(answer, route, methods=METHODS, stream=True, name=f"answer{len(route)}")
    return app


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535))
def main(host: str, port: int) -> None:
    """Answers every request with what it received. See the module's text for the paths that do more."""
    try:
        listener = socket.create_server((host, port), backlog=1024)
    except OSError as failure:
        raise click.ClickException(f"cannot listen on {host}:{port}: {failure.strerror}") from None
    click.echo(f"demo backend on http://{host}:{port}")
    create_app().run(sock=listener, single_process=True, access_log=False, motd=False)


if __name__ == "__main__":
    main()
