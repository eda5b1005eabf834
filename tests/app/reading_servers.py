"""Servers that say how they read a request, where they are installed: Node's, and nginx in front of an echo."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.gateway import until
from tools.embedded import ReservedPort
from tools.readers import Reading, Request, answers_by_h11, requests_by_h11

Read = Callable[[bytes], Reading]
MARK = b"GET /mark HTTP/1.1\r\nHost: mark\r\nConnection: close\r\n\r\n"
"""Sent behind what is to be read: where it is read as a request of its own, what came before it ended exactly there."""

NODE = """
const http = require('http');
function echo(request, response) {
  const chunks = [];
  request.on('data', chunk => chunks.push(chunk));
  request.on('end', () => response.end(JSON.stringify([request.method, request.url, request.rawHeaders,
    Buffer.concat(chunks).toString('base64')])));
}
const server = http.createServer(echo);
server.on('checkExpectation', echo);
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
"""
NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_max_body_size 0; large_client_header_buffers 4 128k;
  underscores_in_headers on; ignore_invalid_headers off; merge_slashes off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{echo}; }} }}
}}
"""


def _ask(port: int, data: bytes) -> Reading:
    """Sends `data` and MARK; what the server echoed. Whoever does not read MARK by itself has not ended at our end."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(data + MARK)
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65_536):
                received += piece
    answers = answers_by_h11(received).answers
    if any(answer.status != 200 for answer in answers):
        return Reading((), "refused")
    echoed = [_request(answer.body) for answer in answers]
    is_clean = bool(echoed) and echoed[-1].target == b"/mark"
    return Reading(tuple(echoed[:-1] if is_clean else echoed), "clean" if is_clean else "partial")


def _request(echo: bytes) -> Request:
    method, target, fields, body = json.loads(echo)
    raw = [each.encode("latin-1") for each in fields]
    named = tuple((name.lower(), value) for name, value in zip(raw[::2], raw[1::2], strict=True))
    return Request(method.encode(), target.encode("latin-1"), named, base64.b64decode(body))


@contextlib.contextmanager
def node() -> Iterator[Read]:
    """Node's http server, as strict as it is by default."""
    command = ["node", "--max-http-header-size=131072", "-e", NODE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        try:
            yield lambda data: _ask(port, data)
        finally:
            process.terminate()


class _Echo(socketserver.StreamRequestHandler):
    """Reads one request by h11, says what it was, closes: nginx asks each on a new connection in HTTP/1.0."""

    def handle(self) -> None:
        data = b""
        while not (requests := requests_by_h11(data).requests):
            piece = self.connection.recv(65_536)
            if not piece:
                return
            data += piece
        (request,) = requests
        flat = [each.decode("latin-1") for pair in request.fields for each in pair]
        echo = [
            request.method.decode(),
            request.target.decode("latin-1"),
            flat,
            base64.b64encode(request.body).decode(),
        ]
        body = json.dumps(echo).encode()
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[Read]:
    """nginx as a proxy: what it passes on is how it read a request."""
    folder.mkdir()
    reserved = ReservedPort()
    port = reserved.number
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as echo:
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        configuration = folder / "nginx.conf"
        configuration.write_text(NGINX.format(folder=folder, port=port, echo=echo.server_address[1]))
        command = ["nginx", "-c", str(configuration), "-p", str(folder)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                until(lambda: _listens(port), "nginx to listen")
                yield lambda data: _ask(port, data)
            finally:
                process.terminate()
                echo.shutdown()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def installed(folder: Path) -> Iterator[dict[str, Read]]:
    """Those of the two that are on this machine, by name."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Read] = {}
        if shutil.which("node"):
            found["node"] = stack.enter_context(node())
        if shutil.which("nginx"):
            found["nginx"] = stack.enter_context(nginx(folder / "nginx"))
        yield found
