"""Files that a verb writes where its user asked for them."""

from __future__ import annotations

import contextlib
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO


@contextlib.contextmanager
def written(path: str) -> Iterator[TextIO]:
    """Open a file that is at `path` when all of it is written, and not before.

    What is there and is not a file itself is written to as it is: a device, a pipe, or a link to
    whatever it may be (``/dev/stdout`` is one). A rename would put a file in its place.

    Raises:
        OSError: It cannot be written. A file that was there is as it was.
    """
    mode = _mode_of_file(path)
    if mode is None:
        with open(path, "w", encoding="utf-8") as file:
            yield file
        return
    # not by the tempfile module: what ends a program is not the time for its imports
    partial = os.path.join(os.path.dirname(path), f".objcg-{os.getpid()}.partial")
    with contextlib.suppress(FileNotFoundError):
        # a process that had this id and was killed
        os.unlink(partial)
    with open(partial, "x", encoding="utf-8") as file:
        try:
            if mode:
                os.fchmod(file.fileno(), mode)
            yield file
            file.close()
            os.replace(partial, path)
        except BaseException:
            os.unlink(partial)
            raise


def why_unwritable(path: str) -> str | None:
    """Return why :func:`written` would fail, as far as can be known before, or None."""
    if os.path.isdir(path):
        return "it is a folder"
    try:
        replaced = _mode_of_file(path) is not None
    except OSError as error:
        return str(error.strerror)
    if not replaced:
        # a link to what is not there yet can be written through
        writable = os.access(path, os.W_OK) or not os.path.exists(path)
        return None if writable else "it is not writable"
    folder = os.path.dirname(path) or "."
    return None if os.access(folder, os.W_OK | os.X_OK) else "its folder is not writable"


def _mode_of_file(path: str) -> int | None:
    """Return the permissions of the file at `path`, 0 if there is nothing, None if no file."""
    try:
        found = os.lstat(path).st_mode
    except FileNotFoundError:
        return 0
    return stat.S_IMODE(found) if stat.S_ISREG(found) else None
