"""Getting the preload library into this process: by executing the same command once more.

``LD_PRELOAD`` has to be set before a program starts. It is taken out of the environment again right
after, so that the program and its children find what the user has set.
"""

from __future__ import annotations

import os
import sys

from objcg import _core

LIBRARY = "libobjcg_preload.so"

_PRELOAD = "LD_PRELOAD"
# The PID of the process that has executed itself. Exec keeps it, and no child has it.
_MARK = "OBJCG_PRELOADED_BY"


def path() -> str | None:
    """Return the path of the library, or None if it is not installed."""
    folder = os.path.dirname(os.path.abspath(_core.__file__))
    # beside the module; in a build folder, as of an editable install, in one of its own
    for place in (folder, os.path.join(os.path.dirname(folder), "preload")):
        file = os.path.join(place, LIBRARY)
        if os.path.isfile(file):
            return file
    return None


def ensure() -> str | None:
    """Return None with the library loaded, or why that cannot be; may execute this command again.

    It does so once: then the library is loaded, or something keeps it out.
    """
    again = clean_up()
    if _core.native_loaded():
        return None
    library = path()
    if library is None:
        return f"{LIBRARY} is not installed beside {_core.__file__}"
    if again:
        return f"the dynamic loader does not preload {library}"
    if any(char in library for char in " :"):
        return f"{_PRELOAD} cannot name {library!r}, which has a space or a colon in it"
    if not sys.executable or not sys.orig_argv:
        return "Python does not know its own command line"
    before = os.environ.get(_PRELOAD)
    os.environ[_PRELOAD] = library if before is None else f"{library}:{before}"
    os.environ[_MARK] = str(os.getpid())
    try:
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606  # no shell: it is this very command
    except OSError as error:
        clean_up()
        return f"{sys.executable} cannot be executed again: {error.strerror}"


def clean_up() -> bool:
    """Take out of the environment what `ensure` has put there; return whether it was there."""
    if os.environ.get(_MARK) != str(os.getpid()):
        return False
    del os.environ[_MARK]
    first, colon, before = os.environ.get(_PRELOAD, "").partition(":")
    # whatever else it is: something in between has changed it
    if first == path():
        if colon:
            os.environ[_PRELOAD] = before
        else:
            del os.environ[_PRELOAD]
    return True
