"""Builds the C extensions of the tests: one call of a compiler each, nothing to install."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import types

HERE = Path(__file__).resolve().parent


def _compiler() -> list[str]:
    """Return the compiler's command: CC, what Python was built with, or one of the usual names."""
    for command in (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"):
        words = shlex.split(command or "")
        if words and shutil.which(words[0]):
            return words
    pytest.skip("no C compiler: set CC, or install gcc or clang")


def build_library(source: str, folder: Path, *, program: bool = False) -> Path:
    """Compile ``tests/extensions/SOURCE`` into a shared library or a program without Python."""
    target = folder / Path(source).stem
    command = _compiler()
    if source.endswith(".cpp"):
        found = shutil.which("g++") or shutil.which("clang++")
        if found is None:
            pytest.skip("no C++ compiler: install g++ or clang++")
        command = [found, "-std=gnu++17"]
    kind = [] if program else ["-fPIC", "-shared"]
    result = subprocess.run(
        [
            *(*command, "-O1", "-g", "-Wall", "-Werror", "-fno-builtin", *kind),
            *(str(HERE / source), "-o", str(target), "-pthread"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return target


def build(name: str, folder: Path) -> types.ModuleType:
    """Compile ``tests/extensions/NAME/NAME.c`` into `folder`, and import it.

    Skips the test where there is no compiler or no Python.h; a source that does not compile is a
    failure.
    """
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").is_file():
        pytest.skip(f"no {include}/Python.h: install the headers of this Python")
    target = folder / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    result = subprocess.run(
        [
            *_compiler(),
            *("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"),
            *("-isystem", str(include), str(HERE / name / f"{name}.c")),
            *("-o", str(target), "-pthread"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    spec = importlib.util.spec_from_file_location(name, target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
