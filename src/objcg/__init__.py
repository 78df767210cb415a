"""Memory control groups for the threads and asyncio tasks of one Python process.

import objcg

objcg.enable()
tenant = objcg.group("/tenants/acme", max="512M")
with tenant:
    ...  # what is allocated here, and by what is started here, is charged to the tenant
print(tenant.memory.current)
"""

from __future__ import annotations

from ._enable import enable, enabled
from .errors import EnableError, GroupBusy, GroupRemoved, MemoryLimitExceeded, MigrationForbidden
from .group import Group, current_group, group
from .memory import Memory
from .reclaim import Handle, register_shrinker
from .task import Task, current_task

# `root` is public too, but not listed: "import *" would fail before enable().
__all__ = [
    "Audit",
    "EnableError",
    "Group",
    "GroupBusy",
    "GroupRemoved",
    "Handle",
    "Memory",
    "MemoryLimitExceeded",
    "MigrationForbidden",
    "Task",
    "audit",
    "current_group",
    "current_task",
    "enable",
    "enabled",
    "group",
    "owner",
    "register_shrinker",
]

# Users know them by these names, and tracebacks should.
for _public in (
    EnableError,
    Group,
    GroupBusy,
    GroupRemoved,
    Handle,
    Memory,
    MemoryLimitExceeded,
    MigrationForbidden,
    Task,
):
    _public.__module__ = __name__
del _public

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._audit import Audit, audit, owner

    root: Group
else:

    def __getattr__(name: str) -> object:
        if name == "root":
            from ._registry import root

            return root()
        if name in {"Audit", "audit", "owner"}:
            # imported when it is first wanted: most programs never do
            from . import _audit

            globals().update(Audit=_audit.Audit, audit=_audit.audit, owner=_audit.owner)
            return globals()[name]
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)

    def __dir__() -> list[str]:
        # help() and the like take every name that is listed, and before enable() root is an error
        return sorted({*globals(), *__all__, *(("root",) if enabled() else ())})
