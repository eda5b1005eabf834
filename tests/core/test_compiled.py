"""The compiled modules of the hot path: used exactly while they are what their sources say."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.process import compiled

WHERE = "import app.reader, app.core.relay.headers as h; print(app.reader.__file__, h.__file__)"


def origins(**environment: str) -> list[str]:
    told = subprocess.run(
        [sys.executable, "-c", WHERE],
        cwd=compiled.ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.split()


def test_sources_run_when_asked_for() -> None:
    """GATEWAY_PURE_PYTHON keeps a process to the sources, whatever was compiled."""
    assert all(origin.endswith(".py") for origin in origins(GATEWAY_PURE_PYTHON="1"))


def test_what_is_fresh_runs() -> None:
    """A process runs compiled modules exactly when they were made of the sources as they are."""
    suffix = compiled.SUFFIX if compiled.is_fresh() else ".py"
    assert all(origin.endswith(suffix) for origin in origins())


@pytest.mark.parametrize("module", compiled.MODULES)
def test_nothing_compiled_waits(module: str) -> None:
    """No coroutine is compiled: those of mypyc did not always end when they were cancelled."""
    tree = ast.parse(compiled.source(module).read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor)]


def test_an_edit_of_a_source_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One changed byte in one source, and what was compiled before is not used any more."""
    for name in compiled.MODULES:
        copy = tmp_path / compiled.source(name).relative_to(compiled.ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(compiled.source(name).read_bytes())
    monkeypatch.setattr(compiled, "ROOT", tmp_path)
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / compiled.STAMP).write_text(compiled.fingerprint())
    assert compiled.is_fresh(folder)
    edited = compiled.source(compiled.MODULES[-1])
    edited.write_bytes(edited.read_bytes() + b"\n")
    assert not compiled.is_fresh(folder)


def test_nothing_compiled_is_no_mistake(tmp_path: Path) -> None:
    """A folder that is not there, or was left half written without its stamp, is not used."""
    assert not compiled.is_fresh(tmp_path / "nowhere")
    assert not compiled.is_fresh(tmp_path)
