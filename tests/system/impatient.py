"""`python -m tests.system.impatient`: the gateway, with too little patience for a hung worker to bore a test."""

from __future__ import annotations

from app import __main__, workers

if __name__ == "__main__":
    setattr(workers, "HANG_SECONDS", 2)  # noqa: B010 - a Final: nothing but this may change it
    __main__.main()
