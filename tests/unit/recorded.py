"""Processes made up for recordings: groups that come and go, and what the recorder is told."""

from __future__ import annotations

import random

from objcg.region import GroupInfo, Region

SECOND = 10**9
AT = 1_700_000_000 * SECOND
CLOCK = 5_000 * SECOND
MIB = 1 << 20


def process(pid=4242, start_time=77, command="python app.py", **more):
    """Return the region of a process, without its groups."""
    fields = {"boot_id": "boot", "python": "3.13", "startup": 10 * MIB, **more}
    return Region(pid, command, [], start_time=start_time, **fields)


def group(path, uid, current, **more):
    """Return a group, with what is not given as it is in one that has just been made."""
    values = {
        "id": uid,
        "online": True,
        "tasks": 0,
        "peak": current,
        "max": None,
        "high": None,
        "low": None,
        "event_counts": (0, 0, 0, 0, 0),
        "stat_values": (current, 0, 0, 0, 0, 0, 1, 0),
    }
    return GroupInfo(path=path, uid=uid, current=current, **{**values, **more})


class Tree:
    """A tree of groups that changes at random, in the way that a process's does.

    Ids are used again, numbers are not; a parent's counters have those of its children.
    """

    def __init__(self, seed, size=12):
        self.random = random.Random(seed)
        self.size = size
        self.uid = 1
        self.groups = {1: {"path": "/", "id": 1, "own": 1000}}
        self.free = []

    def step(self):
        chance = self.random.random
        while len(self.groups) < self.size and chance() < 0.7:
            self.make()
        if chance() < 0.5:
            self.remove()
        for group in self.groups.values():
            if chance() < 0.5:
                group["own"] = self.random.choice(
                    [0, 16 * self.random.randrange(1 << self.random.randrange(1, 40)), 17]
                )
            if chance() < 0.2:
                group["max"] = self.random.choice([None, 0, 2**62 - 1, 64 * MIB])
            if chance() < 0.2:
                event = self.random.randrange(5)
                group.setdefault("events", [0] * 5)[event] += self.random.randrange(1, 1000)
            group["tasks"] = self.random.randrange(3)

    def make(self):
        self.uid += 1
        above = self.random.choice([g["path"] for g in self.groups.values()])
        # a name that was there before, now and then
        name = f"g{self.random.randrange(30)}"
        path = f"{above.rstrip('/')}/{name}"
        if path not in [g["path"] for g in self.groups.values()]:
            number = self.free.pop() if self.free else self.uid
            self.groups[self.uid] = {"path": path, "id": number, "own": 0}

    def remove(self):
        leaves = [
            uid
            for uid, group in self.groups.items()
            if uid != 1
            and not any(g["path"].startswith(group["path"] + "/") for g in self.groups.values())
        ]
        if leaves:
            gone = self.groups.pop(self.random.choice(leaves))
            self.free.append(gone["id"])

    def infos(self):
        """Return the groups by rising id, as a region has them."""
        found = []
        for uid, one in sorted(self.groups.items(), key=lambda item: item[1]["id"]):
            prefix = one["path"].rstrip("/") + "/"
            below = [g for g in self.groups.values() if g is one or g["path"].startswith(prefix)]
            current = sum(g["own"] for g in below)
            one["peak"] = max(one.get("peak", 0), current)
            found.append(
                group(
                    one["path"],
                    uid,
                    current,
                    id=one["id"],
                    peak=one["peak"],
                    tasks=one.get("tasks", 0),
                    max=one.get("max"),
                    low=one.get("max"),
                    event_counts=tuple(
                        sum(g.get("events", [0] * 5)[i] for g in below) for i in range(5)
                    ),
                    stat_values=(current - current // 3, current // 3, 0, 0, 0, 0, 7, 1),
                )
            )
        return found
