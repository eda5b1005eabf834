"""Other gateways, to be measured beside ours where they are installed: one worker each, a small configuration."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
KEY: Final = "sk_test_0123456789abcdef0123456789abcdef"
"""The one key that the peers know."""
LUA_MODULES: Final = ("ndk_http_module.so", "ngx_http_lua_module.so")
REDIS_CLIENTS: Final = (
    "/usr/share/lua/5.1/nginx/redis.lua",
    "/usr/share/lua/5.1/resty/redis.lua",
    "/usr/local/share/lua/5.1/resty/redis.lua",
)


@dataclass(frozen=True, slots=True)
class Peer:
    """`work`: what it does for a request. `is_installed` looks at this machine."""

    name: str
    work: str
    configuration: str
    is_installed: Callable[[], bool]

    def command(self, folder: Path, *, port: int, origin: int, redis: int | None) -> list[str]:
        """Writes its configuration into `folder` and answers how to start it: in the foreground, one worker."""
        values = {"FOLDER": folder, "KEY": KEY, "PORT": port, "ORIGIN": origin, "REDIS": redis, "MODULES": _modules()}
        text = (FOLDER / self.configuration).read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        file = folder / self.configuration
        file.write_text(text)
        if self.name == "caddy":
            return [shutil.which("caddy") or "caddy", "run", "--adapter", "caddyfile", "--config", str(file)]
        return [_nginx() or "nginx", "-p", str(folder), "-c", str(file)]


def _nginx() -> str | None:
    """Its path; system administrators' commands are often not on a user's PATH."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@functools.cache
def _modules_folder() -> Path | None:
    """Where this nginx keeps the modules that it loads at need."""
    nginx = _nginx()
    if nginx is None:
        return None
    built = subprocess.run([nginx, "-V"], capture_output=True, text=True, check=False, timeout=10).stderr
    found = re.search(r"--modules-path=(\S+)", built)
    return Path(found.group(1)) if found else None


def _has_lua() -> bool:
    folder = _modules_folder()
    has_modules = folder is not None and all((folder / name).exists() for name in LUA_MODULES)
    return has_modules and any(Path(client).exists() for client in REDIS_CLIENTS)


def _modules() -> str:
    folder = _modules_folder()
    return "\n".join(f"load_module {folder / name};" for name in LUA_MODULES) if folder else ""


NGINX: Final = Peer("nginx", "key, proxy", "nginx.conf", lambda: _nginx() is not None)
PEERS: Final = (
    Peer("nginx-lua", "key, Redis limit, proxy, JSON log", "nginx-lua.conf", _has_lua),
    Peer("caddy", "key, proxy", "Caddyfile", lambda: shutil.which("caddy") is not None),
    NGINX,
)
