"""Paths of groups: absolute, of plain components, as in cgroupfs."""

from __future__ import annotations

# The depth of the deepest group; root has depth 0.
MAX_DEPTH = 128
# The room a group record has for its name, in bytes of UTF-8.
MAX_NAME = 255

ACCEPTED = (
    'accepted is "/" or a path such as "/tenants/acme", whose parts are 1 to 255 bytes of UTF-8 '
    'each, without NUL, and not "." or ".."'
)


def split(path: object) -> tuple[str, ...]:
    """Return the components of a group's path; those of ``"/"`` are none.

    Raises TypeError when `path` is not a str, and ValueError, naming the path and the part that is
    wrong, when it is not the path of a possible group.
    """
    if not isinstance(path, str):
        msg = f"a group's path must be a str, not {path!r} ({type(path).__name__}); {ACCEPTED}"
        raise TypeError(msg)
    if not path.startswith("/"):
        msg = f"group path {path!r} does not begin with '/'; {ACCEPTED}"
        raise ValueError(msg)
    if path == "/":
        return ()
    parts = tuple(path[1:].split("/"))
    for part in parts:
        wrong = _fault(part)
        if wrong:
            msg = f"group path {path!r} has {wrong}; {ACCEPTED}"
            raise ValueError(msg)
    if len(parts) > MAX_DEPTH:
        msg = (
            f"group path {path!r} is {len(parts)} groups deep; the deepest accepted is {MAX_DEPTH}"
        )
        raise ValueError(msg)
    return parts


def _fault(part: str) -> str | None:
    if not part:
        return "an empty part"
    if part in {".", ".."}:
        return f"the part {part!r}"
    if "\0" in part:
        return f"a NUL in the part {part!r}"
    try:
        size = len(part.encode())
    except UnicodeEncodeError:
        return f"the part {part!r}, which cannot be written as UTF-8"
    if size > MAX_NAME:
        return f"a part of {size} bytes, {part[:32]!r}…"
    return None
