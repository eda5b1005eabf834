"""`python -m tests.system.impatient`: the gateway, with too little patience for a hung worker to bore a test.

Its workers hang at their start while a file `blocked` is in its folder.
"""

from __future__ import annotations

import time
from pathlib import Path

from app import __main__, arbiter
from app.services import Services

opens = Services.__aenter__


async def block(self: Services) -> Services:
    while Path("blocked").exists():  # noqa: ASYNC240 - it is to block
        time.sleep(60)  # noqa: ASYNC251 - it is to block
    return await opens(self)


if __name__ == "__main__":
    setattr(arbiter, "HANG_SECONDS", 2)  # noqa: B010 - a Final: nothing but this may change it
    setattr(Services, "__aenter__", block)  # noqa: B010 - what this program is for
    __main__.main()
