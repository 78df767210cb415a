"""A cgroup with a limit for one process, made in the machine's real cgroup file system."""

from __future__ import annotations

import contextlib
import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# (the file that has the limit, the file system's type and option in /proc/self/mountinfo)
_KINDS = (("memory.max", "cgroup2", ""), ("memory.limit_in_bytes", "cgroup", "memory"))


def _mount_points() -> Iterator[tuple[str, Path]]:
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split()[:3]
        for file, wanted, option in _KINDS:
            if kind == wanted and (not option or option in options.split(",")):
                yield file, Path(before.split()[4])


@contextmanager
def limited_cgroup(limit: int) -> Iterator[Path]:
    """Make a cgroup with a limit (bytes); skips the test where that is not possible."""
    reasons = []
    for file, point in _mount_points():
        folder = point / f"objcg-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError as error:
            reasons.append(f"{point}: {error.strerror}")
            continue
        try:
            if not (folder / file).exists():
                reasons.append(f"{point}: the controller memory is not enabled for those below")
                continue
            (folder / file).write_text(str(limit), encoding="ascii")
            with contextlib.suppress(OSError):
                (folder / "memory.swap.max").write_text("0", encoding="ascii")
            yield folder
            return
        except PermissionError as error:
            reasons.append(f"{folder / file}: {error.strerror}")
        finally:
            _remove(folder)
    pytest.skip("no memory cgroup can be made here: " + ("; ".join(reasons) or "none is mounted"))


def highest_usage(folder: Path) -> int | None:
    """Return the kernel's highest usage of a cgroup (bytes), if it keeps one (v2: from 5.19)."""
    for name in ("memory.peak", "memory.max_usage_in_bytes"):
        with contextlib.suppress(FileNotFoundError):
            return int((folder / name).read_text(encoding="ascii"))
    return None


def _remove(folder: Path) -> None:
    # a process that has ended may be in it for a moment
    for attempt in range(100):
        try:
            folder.rmdir()
        except OSError:
            if attempt == 99:
                raise
            time.sleep(0.01)
        else:
            return
