"""`python -m tests.system.broken`: the gateway, with services that fail to open."""

from __future__ import annotations

from app import __main__
from app.services import Services


async def fail(self: Services) -> Services:
    raise RuntimeError("nothing works today")


if __name__ == "__main__":
    setattr(Services, "__aenter__", fail)  # noqa: B010 - what this program is for
    __main__.main()
