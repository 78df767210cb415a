"""A block of 64 bytes, allocated and freed at once: the allocator alone, called by a loop in C."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any


def core() -> Any:
    """Return the module that has the loop; stock's side loads it alone, and never installs it."""
    loaded = sys.modules.get("objcg._core")
    if loaded is not None:
        return loaded
    package = find_spec("objcg")
    assert package is not None  # noqa: S101  # objcg started this process
    spec = PathFinder.find_spec("_core", package.submodule_search_locations)
    if spec is None or spec.loader is None:
        sys.exit("found no objcg._core as a file beside the package: an editable install has none")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CORE = core()
SIDE = "objcg" if "objcg._core" in sys.modules else "stock"


def main(scale: float) -> int:
    """Allocate and free; return how often."""
    count = int(1_000_000 * scale)
    CORE.time_malloc(SIDE, count, 64, "pair")
    return count
