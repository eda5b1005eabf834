"""`python -m tests.system.fragile`: the gateway, whose workers fail to start while a file `broken` is in its folder."""

from __future__ import annotations

from pathlib import Path

from app import __main__
from app.services import Services

opens = Services.__aenter__


async def fail_if_broken(self: Services) -> Services:
    if Path("broken").exists():  # noqa: ASYNC240 - once, at the start
        raise RuntimeError("nothing works today")
    return await opens(self)


if __name__ == "__main__":
    setattr(Services, "__aenter__", fail_if_broken)  # noqa: B010 - what this program is for
    __main__.main()
