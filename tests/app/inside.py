"""A worker's app in the loop of a test, over real sockets: for what cannot be brought about from outside."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sanic import Sanic

from app.core.process.settings import GatewaySettings
from app.door import DoorProtocol
from app.server import create_app


@asynccontextmanager
async def serving(
    name: str,
    environment: Mapping[str, str],
    write: Callable[[bytes], None],
    protocol: type[DoorProtocol] = DoorProtocol,
) -> AsyncIterator[tuple[Any, Any]]:
    """The app and its listening socket. `write` takes the log's lines."""
    Sanic.test_mode = True
    app = create_app(GatewaySettings.model_validate(environment), write, name=name)
    listener = socket.create_server(("127.0.0.1", 0))  # to Sanic port 0 is no port: it would take 8000
    server: Any = await app.create_server(
        sock=listener, protocol=protocol, asyncio_server_kwargs={"start_serving": False}
    )
    await server.startup()
    await server.before_start()
    await server.start_serving()
    try:
        yield app, listener
    finally:
        await server.before_stop()
        await server.close()
        await server.after_stop()
        type(app).unregister_app(app)
