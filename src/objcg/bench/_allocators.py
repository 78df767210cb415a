"""Other allocators beside stock CPython: shared libraries that are loaded in place of malloc."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._programs._process import OBJCG, STOCK, find_library

if TYPE_CHECKING:
    import argparse

    from .runner import Options, Row

LIBRARIES = {
    "mimalloc": ("libmimalloc.so.2", "libmimalloc2.0"),
    "jemalloc": ("libjemalloc.so.2", "libjemalloc2"),
}
"""The name that the linker looks for, Debian's package."""


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that leaves them out."""
    parser.add_argument(
        "--no-preload",
        action="store_true",
        help=f"leave out the allocators loaded by LD_PRELOAD ({', '.join(LIBRARIES)})",
    )


def sides(options: Options) -> tuple[dict[str, str | None], list[Row]]:
    """Return the path of the library of each side, and a row for each that is not there."""
    found: dict[str, str | None] = {STOCK: None, OBJCG: None}
    skipped: list[Row] = []
    if not options.extra.get("no_preload"):
        for side, (library, package) in LIBRARIES.items():
            path = find_library(library)
            if path is None:
                remark = f"{library} is not on this machine (Debian: {package})"
                skipped.append({"side": side, "skipped": remark})
            else:
                found[side] = path
    return found, skipped


def skipped_text(rows: list[Row]) -> list[str]:
    """Return a line for each that is not there."""
    return [f"{row['side']} skipped: {row['skipped']}" for row in rows if "skipped" in row]
