"""Which version of this project runs. Pure."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final


def _version() -> str:
    try:
        return version("saas-gateway")
    except PackageNotFoundError:  # run from a folder that was never installed
        return "unknown"


VERSION: Final = _version()
