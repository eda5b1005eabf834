"""`tools/compile`: makes the hot path's modules faster, with mypyc and a C compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Distribution
from setuptools.command.build_ext import build_ext

from app.core.process import compiled


def main() -> None:
    """Exit status 0: compiled, or nothing to do. 1, with one line that says why, when this machine cannot."""
    if compiled.is_fresh():
        return
    if problem := _obstacle():
        sys.exit(f"tools/compile: {problem}; the gateway runs without, somewhat slower")
    print("tools/compile: compiling the hot path's modules (once, about a minute)", flush=True)
    stage = compiled.FOLDER.with_name(f"{compiled.FOLDER.name}.{os.getpid()}")
    try:
        fingerprint = compiled.fingerprint()
        _build(stage)
        (stage / compiled.STAMP).write_text(fingerprint)
        shutil.rmtree(compiled.FOLDER, ignore_errors=True)
        stage.rename(compiled.FOLDER)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _obstacle() -> str | None:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler})"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's own headers are not installed (on Debian and Ubuntu: apt install python3-dev)"
    return None


def _build(stage: Path) -> None:
    """Extension modules in the shape of the package tree. Raises what mypy and the C compiler find wrong."""
    from mypyc.build import mypycify  # slow to import

    os.chdir(compiled.ROOT)
    sources = [str(compiled.source(name).relative_to(compiled.ROOT)) for name in compiled.MODULES]
    options = ["--follow-imports=silent", "--ignore-missing-imports"]
    extensions = mypycify(
        [*options, *sources], opt_level="2", debug_level="0", group_name=compiled.GROUP, target_dir=str(stage / "c")
    )
    command = build_ext(Distribution({"ext_modules": extensions}))
    command.build_lib, command.build_temp = str(stage), str(stage / "o")
    command.ensure_finalized()
    command.run()
    for scrap in ("c", "o"):
        shutil.rmtree(stage / scrap, ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"tools/compile: {error}")
