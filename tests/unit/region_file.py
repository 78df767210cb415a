"""Region files made by hand, from the layout's description and not from the reader's tables."""

from __future__ import annotations

import os
import struct

NO_LIMIT = 2**63 - 1
RECORD_SIZES = (512, 64, 128, 8256)
CAPACITY = 64
GROUPS, OBJCGS, TASKS, CPUS = range(4)


class RegionFile:
    """A region with a root group, that is written to like memory."""

    def __init__(self, capacities=(CAPACITY, CAPACITY, CAPACITY, 4)):
        self.capacities = capacities
        self.offsets = []
        at = 4096
        for size, capacity in zip(RECORD_SIZES, capacities, strict=True):
            self.offsets.append(at)
            at += size * capacity
        self.data = bytearray(at)
        self.used = [1, 1, 1, 0]
        self.data[0:8] = b"OBJCGRG1"
        self.put(8, "II", 1, 4096)
        self.put(16, "Q", at)
        self.process(os.getpid(), start_time(os.getpid()))
        self.put(80, "Q", 1_700_000_000_000_000_000)
        self.data[256:262] = b"3.12.1"
        self.command("python app.py")
        self.group(1, 0, "")

    def put(self, offset, codes, *values):
        struct.pack_into(f"<{codes}", self.data, offset, *values)

    def process(self, pid, started):
        self.put(24, "II", pid, os.geteuid())
        self.put(32, "Q", started)

    def command(self, text):
        data = text.encode()
        self.put(320, "I", len(data))
        self.data[324 : 324 + len(data)] = data

    def section(self, index, *, offset=None, record_size=None, capacity=None, used=None):
        default = (
            self.offsets[index],
            RECORD_SIZES[index],
            self.capacities[index],
            self.used[index],
        )
        given = (offset, record_size, capacity, used)
        values = [d if g is None else g for d, g in zip(default, given, strict=True)]
        self.put(96 + 24 * index, "QIII", *values)

    def at(self, section, index):
        self.used[section] = max(self.used[section], index + 1)
        self.section(section)
        return self.offsets[section] + index * RECORD_SIZES[section]

    def group(
        self,
        gid,
        parent,
        name,
        *,
        state=1,
        usage=0,
        peak=0,
        limit=NO_LIMIT,
        high=NO_LIMIT,
        low=0,
        tasks=0,
        dying=0,
        blocks=0,
        stat=(0, 0, 0, 0, 0),
        events=(0, 0, 0, 0, 0),
        seq=0,
        name_len=None,
    ):
        at = self.at(GROUPS, gid)
        data = name if isinstance(name, bytes) else name.encode()
        self.put(at, "I4xI", state, parent)
        self.put(at + 20, "I4xI", tasks, dying)
        self.put(at + 40, "Q", 1000 + gid)
        self.put(at + 64, "5q", usage, limit, high, low, peak)
        self.put(at + 104, "q", blocks)
        self.put(at + 120, "5q", *stat)
        self.put(at + 160, "5Q", *events)
        self.put(at + 208, "II", seq, len(data) if name_len is None else name_len)
        self.data[at + 256 : at + 512] = data.ljust(256, b"\0")
        for section in range(4):
            self.section(section)

    def objcg(self, index, gid, state=1):
        self.put(self.at(OBJCGS, index), "II", state, gid)

    def task(self, index, gid, task_id, name, *, state=1, name_len=None):
        at = self.at(TASKS, index)
        data = name.encode()
        self.put(at, "IIII", 0, gid, 0, state)
        self.put(at + 16, "Q", task_id)
        self.put(at + 28, "I", len(data) if name_len is None else name_len)
        self.data[at + 32 : at + 96] = data.ljust(64, b"\0")

    def stock(self, cpu, slot, objcg, nbytes, *, blocks=0, stat=(0, 0, 0, 0, 0), state=1):
        at = self.at(CPUS, cpu)
        self.put(at, "I", state)
        self.put(at + 64 + 64 * slot, "I4xqq5q", objcg << 1, nbytes, blocks, *stat)

    def write(self, folder, name=None):
        if name is None:
            name = f"{os.getpid()}-{start_time(os.getpid())}.region"
        path = folder / name
        path.write_bytes(self.data)
        return path


def start_time(pid):
    with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
        return int(file.read().rpartition(")")[2].split()[19])
