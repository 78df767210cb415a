"""The memory of a group: what it uses, what it may use, and what happened at its limits."""

from __future__ import annotations

from . import limits, reclaim
from ._sizes import ACCEPTED, Size, format_size, parse_bytes, parse_limit, parse_protection
from .errors import removed, translated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, SupportsIndex

    from .group import Group


class Memory:
    """The memory of one group and its subtree, in bytes; from `Group.memory`.

    The names are those of the kernel's cgroup v2 files (Documentation/admin-guide/cgroup-v2.rst):
    ``memory.current`` is `current`, and so on. Everything here raises `GroupRemoved` once the
    group was removed.
    """

    __slots__ = ("_group",)

    def __init__(self, group: Group) -> None:
        self._group = group

    def __repr__(self) -> str:
        group = self._group
        if not group.online:
            return f"<memory of removed group {group.path}>"
        limit = self.max
        of = "" if limit is None else f" of {format_size(limit)}"
        return f"<memory of group {group.path}: {format_size(self.current)}{of}>"

    @property
    def current(self) -> int:
        """Bytes charged to the group and its descendants now."""
        try:
            return self._group._current()
        except OSError:
            # not translated(): this is the one that is read all the time
            raise removed(self._group) from None

    @property
    def peak(self) -> int:
        """The most bytes ever charged at once, since the group was made or `reset_peak()`."""
        with translated(self._group):
            return self._group._read()["peak"]

    @property
    def max(self) -> int | None:
        """The hard limit in bytes, or None; see `MemoryLimitExceeded`. Set to any size.

        Setting it below `current` reclaims at once, as writing the kernel's ``memory.max`` does.

        Root's may also be set to ``"auto"``: it then follows the memory limit of the container (the
        process's cgroups), and is what that leaves to the groups, so that a task gets an error
        before the kernel ends the process. Reading it gives the bytes that are in force now, None
        where there is no container or it has no limit. Any other value ends that.
        """
        with translated(self._group):
            return self._group._read()["max"]

    @max.setter  # noqa: A003  # the kernel's name
    def max(self, value: Size) -> None:
        write(self._group, check({"max": value}, path=self._group.path))

    @property
    def high(self) -> int | None:
        """The bytes above which the group is reclaimed from, or None. Set to any size.

        Never raises in a task; coroutines can slow down to it with `Group.throttle()`.
        """
        with translated(self._group):
            return self._group._read()["high"]

    @high.setter
    def high(self, value: Size) -> None:
        write(self._group, check({"high": value}))

    @property
    def low(self) -> int | None:
        """The bytes up to which the group is spared by reclaim from above, or None: not at all.

        Set to a number of bytes, or None.
        """
        with translated(self._group):
            return self._group._read()["low"]

    @low.setter
    def low(self, value: SupportsIndex | str | None) -> None:
        write(self._group, check({"low": value}))

    @property
    def events(self) -> dict[str, int]:
        """How often each thing happened in the group or below it, by name.

        "low": reclaimed though under `low`; "high", "max": went over that limit; "ceiling": a
        small allocation failed at the hard ceiling; "raised": a task got `MemoryLimitExceeded`.
        """
        with translated(self._group):
            return {**self._group._read()["events"]}  # type: ignore[dict-item]

    @property
    def stat(self) -> dict[str, int]:
        """What `current` is made of.

        Bytes by allocation domain ("object", "mem", "raw", "numpy", "native", "mmap"), the number
        of "blocks", and of "dying_descendants": removed groups that something is charged to still.
        """
        with translated(self._group):
            return {**self._group._read()["stat"]}  # type: ignore[dict-item]

    def reclaim(self, nbytes: SupportsIndex | str) -> int:
        """Try to free `nbytes` (any size) of the group's memory; return how many bytes were.

        Calls the shrinkers (`objcg.register_shrinker`) and then the garbage collector; more, or
        less, than was asked for may come free. The kernel's name for it is ``memory.reclaim``.
        """
        size = parse_bytes(nbytes, "reclaim")
        with translated(self._group):
            return reclaim.reclaim(self._group, size)

    def reset_peak(self) -> None:
        """Let `peak` begin again at `current`."""
        with translated(self._group):
            self._group._reset_peak()


_KNOBS: dict[str, Callable[[Size, str], int | None]] = {
    "max": parse_limit,
    "high": parse_limit,
    "low": parse_protection,
}


# What root's max may be, too: see _budget.py.
AUTO: Literal["auto"] = "auto"


def is_auto(value: object) -> bool:
    """Return whether this is the "auto" of root's max."""
    return isinstance(value, str) and value.strip() == AUTO


def check(
    knobs: dict[str, Size], path: str | None = None
) -> dict[str, int | Literal["auto"] | None]:
    """Return the values of `knobs` of the group at `path` in bytes, None for unset.

    Raises TypeError for a knob that does not exist, and TypeError or ValueError for a bad value.
    """
    values: dict[str, int | Literal["auto"] | None] = {}
    for knob, value in knobs.items():
        parse = _KNOBS.get(knob)
        if parse is None:
            msg = f"unknown memory knob {knob!r} (={value!r}); accepted are {', '.join(_KNOBS)}"
            raise TypeError(msg)
        if knob == "max" and is_auto(value):
            if path != "/":
                msg = (
                    f"memory.max: {value!r} is accepted for the root group only, being a limit of "
                    f"the whole process, and not for {path}; {ACCEPTED}"
                )
                raise ValueError(msg)
            values[knob] = AUTO
            continue
        values[knob] = parse(value, f"memory.{knob}")
    return values


def write(group: Group, values: dict[str, int | Literal["auto"] | None]) -> None:
    """Set checked knobs of `group`, and reclaim what is above a new limit.

    Raises GroupRemoved.
    """
    with translated(group):
        for knob, value in values.items():
            if value == AUTO:
                from . import _budget  # for containers

                _budget.follow()
                continue
            if knob == "max" and group.parent is None and limits.measure is not None:
                from . import _budget

                _budget.stop()
            if value is not None and knob != "low":
                # before the limit is there: whoever goes over it must find the reclaimer
                limits.start()
            group._set(knob, value)
            if value is not None and knob != "low":
                above = group._current() - value
                if above > 0:
                    reclaim.reclaim(group, above)
