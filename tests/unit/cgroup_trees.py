"""Cgroup file systems as processes see them, written to a folder: what /proc and the mounts have.

The lines of /proc are those that the systems named here show, with shortened ids.
"""

from __future__ import annotations

from objcg._container import Cgroups

V1_UNLIMITED = 9223372036854771712
MIB = 1 << 20


class Tree:
    """A process's view: `membership` is /proc/self/cgroup, `mounts` lines of mountinfo."""

    def __init__(self, folder, membership, *mounts):
        self.folder = folder
        (folder / "proc").mkdir()
        self.membership(membership)
        other = "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
        lines = (f"{40 + i} 31 0:{40 + i} {mount}\n" for i, mount in enumerate(mounts))
        (folder / "proc" / "mountinfo").write_text(other + "".join(lines))

    def membership(self, text):
        (self.folder / "proc" / "cgroup").write_text(text)

    def v2(self, path, limit, current=0, **stat):
        folder = self._make(path)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{current}\n")
        (folder / "memory.stat").write_text("".join(f"{k} {v}\n" for k, v in stat.items()))

    def v1(self, path, limit, usage=0, *, hierarchical=None, use_hierarchy=1, **stat):
        folder = self._make(path)
        stat["hierarchical_memory_limit"] = limit if hierarchical is None else hierarchical
        (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (folder / "memory.usage_in_bytes").write_text(f"{usage}\n")
        (folder / "memory.use_hierarchy").write_text(f"{use_hierarchy}\n")
        (folder / "memory.stat").write_text("".join(f"{k} {v}\n" for k, v in stat.items()))

    def _make(self, path):
        folder = self.folder / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def cgroups(self):
        return Cgroups(proc=str(self.folder / "proc"), root=str(self.folder))

    def nearest(self):
        """Return (limit, used, file) of the nearest limit; None without one."""
        found = self.cgroups().nearest()
        if found is None:
            return None
        return found.limit, found.used, found.source.removeprefix(str(self.folder))
