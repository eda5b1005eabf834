"""The hot path's modules as `tools/compile` made them of the same sources with mypyc: used when they are there.

Optional: without them, or after an edit of one of the sources, Python runs the sources (docs/performance.md: how fast).
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Sequence
from hashlib import sha256
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
FOLDER: Final = ROOT / "build" / "compiled" / (sys.implementation.cache_tag or "python")
STAMP: Final = "sources.sha256"
GROUP: Final = "saas_gateway"
SUFFIX: Final = sysconfig.get_config_var("EXT_SUFFIX") or ".so"
MODULES: Final = (
    "app.admission",
    "app.answer_writer",
    "app.choice",
    "app.context",
    "app.conversation",
    "app.fast_path",
    "app.message",
    "app.middleware",
    "app.outbound",
    "app.reader",
    "app.relayed",
    "app.responses",
    "app.core.keys.credential",
    "app.core.keys.keytable",
    "app.core.limits.announce",
    "app.core.limits.asking",
    "app.core.limits.bucket",
    "app.core.limits.denials",
    "app.core.limits.fallback",
    "app.core.limits.group",
    "app.core.limits.question",
    "app.core.limits.questions",
    "app.core.limits.waiting",
    "app.core.process.access",
    "app.core.process.pending",
    "app.core.process.request_id",
    "app.core.redis.wire",
    "app.core.relay.answer_reader",
    "app.core.relay.balancer",
    "app.core.relay.headers",
    "app.core.relay.known_lines",
    "app.core.relay.outbox",
    "app.core.relay.peer",
    "app.core.relay.pool",
    "app.core.relay.retry_budget",
    "app.core.relay.routing",
    "app.core.relay.standing",
    "app.core.relay.target",
    "app.core.relay.upgrade",
)
"""What a request spends its time in, as far as it does not wait: mypyc's coroutines did not always end when cancelled.
Nor what extends Sanic's classes, which cannot be native, nor the model, whose dataclasses pydantic takes apart."""


class CompiledFinder(MetaPathFinder):
    """Finds MODULES, and what they share, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._files = {name: folder.joinpath(*name.split(".")).with_suffix(SUFFIX) for name in MODULES}
        self._files[f"{GROUP}__mypyc"] = folder / f"{GROUP}__mypyc{SUFFIX}"

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self._files.get(fullname)
        return None if file is None else spec_from_file_location(fullname, file)


def source(module: str) -> Path:
    """The file that a module is compiled from."""
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def fingerprint() -> str:
    """Of every source: one changed byte, and what was compiled is not used any more."""
    return sha256(b"\0".join(source(name).read_bytes() for name in MODULES)).hexdigest()


def is_fresh(folder: Path = FOLDER) -> bool:
    """Whether what lies in `folder` was made of the sources as they are."""
    try:
        return (folder / STAMP).read_text() == fingerprint()
    except OSError:
        return False


def install() -> None:
    """Called before the first of MODULES is imported. GATEWAY_PURE_PYTHON, not empty, keeps to the sources."""
    if not os.environ.get("GATEWAY_PURE_PYTHON") and is_fresh():
        sys.meta_path.insert(0, CompiledFinder(FOLDER))


def in_use() -> bool:
    """Whether this process runs compiled modules."""
    return any(isinstance(finder, CompiledFinder) for finder in sys.meta_path)
