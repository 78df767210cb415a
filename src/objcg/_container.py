"""What the kernel lets this process have: the memory limits of the cgroups that it is in.

A container's limit is one of a cgroup, which the kernel enforces by killing. There may be several,
one above the other (a pod's, its containers', a systemd slice's), and none of them need be where
`/proc/self/cgroup` says, so this looks at what is mounted, as the kernel's own tools do:

- cgroup v2: one hierarchy, ``memory.max`` and ``memory.current``. v1: that of the controller
  "memory", ``memory.limit_in_bytes`` and ``memory.usage_in_bytes``, where "unlimited" is a number.
  Hybrid: both are mounted, and one has the controller.
- In a container the mount often begins at the container's own cgroup (the field *root* of
  mountinfo), of which the path in ``/proc/self/cgroup`` is the same, or a part of it; in a cgroup
  namespace both are "/".

Guarantees: every limit that is visible from here, up to the topmost mounted cgroup, and in v1 also
what the kernel says of those above. Never raises for what it finds there; but where this process
cannot look now, for want of a descriptor or memory, that is an OSError, and not no limit. Assumes:
nothing; a limit above a v2 mount cannot be seen by anybody inside.

See Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst, and proc_pid_mountinfo(5).
"""

from __future__ import annotations

from . import _core
from ._location import SHORTAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# v1 says "no limit" by the largest counter there is, less than a page below 2**63 (2**63 - 1
# before Linux 3.19); nobody has a quarter of it.
_V1_UNLIMITED = 1 << 61


class Limit:
    """A limit (bytes) that holds for this process, and what counts towards it already.

    `used` is what the kernel cannot just drop: all of the cgroup's processes, tmpfs and sockets,
    but not the page cache of files, which it reclaims before it kills. `source` is the file that
    has the limit.
    """

    def __init__(self, limit: int, used: int, source: str) -> None:
        self.limit = limit
        self.used = used
        self.source = source

    def __repr__(self) -> str:
        return f"<Limit {self.limit} ({self.used} used) of {self.source}>"

    @property
    def free(self) -> int:
        """Bytes that all processes of the cgroup together may still take."""
        return max(0, self.limit - self.used)


class Cgroups:
    """The cgroups of one process whose limits can be seen, found once and read often.

    `proc` is the process's folder in /proc. `root` is put before mount points: tests have recorded
    trees there.
    """

    def __init__(self, proc: str = "/proc/self", root: str = "") -> None:
        self._proc = proc
        self._root = root
        # what /proc/self/cgroup has; "" where there are none
        self.membership = ""
        # (folder, whether it is v2), the process's own first, then those above
        self._levels: list[tuple[str, bool]] = []

    def limits(self) -> list[Limit]:
        """Return the limits that hold now; none when there is no limit, or none can be seen.

        Raises OSError where they cannot be read for want of a descriptor or of memory.
        """
        # A process may be moved, and a forked one look anew: that is one small file. What is
        # mounted is in a long one.
        membership = _read(f"{self._proc}/cgroup") or ""
        if membership != self.membership:
            self._levels = list(self._find(membership))
            self.membership = membership  # not before they were found
        found = (_limit_v2(path) if v2 else _limit_v1(path) for path, v2 in self._levels)
        return [limit for limit in found if limit is not None]

    def nearest(self) -> Limit | None:
        """Return the limit that leaves least, which need not be the smallest; None: no limit."""
        return min(self.limits(), key=lambda limit: limit.free, default=None)

    def _find(self, membership: str) -> Iterator[tuple[str, bool]]:
        paths = _memberships(membership)
        for root, point, v2 in self._mounts():
            path = paths.get(v2)
            below = None if path is None else _below(path, root)
            if below is not None:
                yield from (
                    (f"{self._root}{point}{level}", v2)
                    for level in _up(below)
                    if v2 or level == below or _is_hierarchical(f"{self._root}{point}{level}")
                )

    def _mounts(self) -> Iterator[tuple[str, str, bool]]:
        """Yield (root, mount point, whether v2) of what is mounted with the controller memory."""
        try:
            path = f"{self._proc}/mountinfo"
            with open(path, encoding="utf-8", errors="surrogateescape") as mountinfo:
                for line in mountinfo:
                    before, dash, after = line.partition(" - ")
                    fields, rest = before.split(" "), after.split()
                    if not dash or len(fields) < 6 or len(rest) < 3:
                        continue
                    v2 = rest[0] == "cgroup2"
                    if v2 or (rest[0] == "cgroup" and "memory" in rest[2].split(",")):
                        point = _unescaped(fields[4]).rstrip("/")
                        yield _unescaped(fields[3]), point, v2
        except OSError as error:
            if error.errno in SHORTAGES:
                raise


def _memberships(text: str) -> dict[bool, str]:
    """Return the paths in ``/proc/self/cgroup``: of v2 under True, of v1's memory under False."""
    paths = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not colon or not path.startswith("/"):
            continue
        if number == "0" and not controllers:
            paths[True] = path.removesuffix(" (deleted)")
        elif "memory" in controllers.split(","):
            paths[False] = path.removesuffix(" (deleted)")
    return paths


def _below(path: str, root: str) -> str | None:
    """Return where cgroup `path` is below a mount that begins at `root`; None: not there.

    ``/..`` leads out of the namespace. A mount whose root is out there is of a cgroup above ours,
    though of what is in between nobody knows the names; a path that leads there is not in sight.
    """
    if path == "/.." or path.startswith("/../"):
        return None
    if path == root or not root.replace("/..", ""):
        return ""
    if root == "/":
        return path
    return path[len(root) :] if path.startswith(f"{root}/") else None


def _up(below: str) -> Iterator[str]:
    """Yield `below` and all above it, the last is the mount point itself."""
    while below:
        yield below
        below = below.rpartition("/")[0]
    yield ""


def _is_hierarchical(folder: str) -> bool:
    """Return whether a v1 cgroup's limit holds for those below; since Linux 5.11 all do."""
    return (_read(f"{folder}/memory.use_hierarchy") or "").strip() != "0"


def _limit_v2(folder: str) -> Limit | None:
    source = f"{folder}/memory.max"
    limit = _number(_read(source))
    used = _number(_read(f"{folder}/memory.current"))
    if limit is None or used is None:
        return None
    stat = _stat(f"{folder}/memory.stat")
    cache = sum(stat.get(name, 0) for name in ("active_file", "inactive_file", "slab_reclaimable"))
    return Limit(limit, max(0, used - cache), source)


def _limit_v1(folder: str) -> Limit | None:
    source = f"{folder}/memory.limit_in_bytes"
    limit = _number(_read(source))
    used = _number(_read(f"{folder}/memory.usage_in_bytes"))
    if limit is None or used is None:
        return None
    stat = _stat(f"{folder}/memory.stat")
    # the smallest of this and all above it, also of those that are not mounted here
    above = stat.get("hierarchical_memory_limit", limit)
    if above < limit:
        limit, source = above, f"{folder}/memory.stat"
    if limit >= _V1_UNLIMITED:
        return None
    cache = sum(stat.get(name, 0) for name in ("total_active_file", "total_inactive_file"))
    return Limit(limit, max(0, used - cache), source)


def _stat(path: str) -> dict[str, int]:
    stat = {}
    for line in (_read(path) or "").splitlines():
        name, _, value = line.partition(" ")
        number = _number(value)
        if number is not None:
            stat[name] = number
    return stat


def _number(text: str | None) -> int | None:
    """Return the number in `text`; None for "max", and for what is no number."""
    digits = "" if text is None else text.strip()
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 20 else None


def _read(path: str) -> str | None:
    try:
        return _core.read_now(path).decode(errors="surrogateescape")
    except OSError as error:
        if error.errno in SHORTAGES:
            raise
        # ENODEV: the cgroup was removed while it was read
        return None


def _unescaped(field: str) -> str:
    """Return a field of mountinfo with its octal escapes undone: blank, tab, newline, backslash."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field
