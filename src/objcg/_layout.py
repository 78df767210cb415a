"""The region file, layout version 1: every field a reader needs, and where it is.

Little endian. A file is a header and four sections of records of one size each; index 0 of groups,
objcgs and tasks is never used. The C side is src/core/types.h.
"""

from __future__ import annotations

import struct
from typing import Any

MAGIC = b"OBJCGRG1"
VERSION = 1

FLAG_NATIVE = 1
FLAG_MIGRATION = 2
FLAG_EXITED = 4
FLAG_AUTO = 8  # root's max follows the container's limit

STATE_FREE = 0
STATE_ONLINE = 1
STATE_OFFLINE = 2

TASK_FREE = 0
TASK_LIVE = 1

NO_LIMIT = 2**63 - 1

EVENTS = ("low", "high", "max", "ceiling", "raised")
DOMAINS = ("object", "mem", "raw", "numpy", "native", "mmap")
STATS = (*DOMAINS, "blocks", "dying_descendants")


class Record:
    """A record of `size` bytes; `fields` maps a name to its offset and struct codes."""

    def __init__(self, size: int, fields: dict[str, tuple[int, str]]) -> None:
        self.size = size
        self.fields = fields
        codes = "<"
        at = 0
        for name, (offset, code) in sorted(fields.items(), key=lambda item: item[1][0]):
            if offset < at:
                msg = f"field {name} at {offset} overlaps the one before it"
                raise ValueError(msg)
            codes += f"{offset - at}x{code}"
            at = offset + struct.calcsize(f"<{code}")
        self.struct = struct.Struct(f"{codes}{size - at}x")

    def column(self, data: bytes, name: str) -> list[int]:
        """Return one field, an "I" or "Q", of all records in `data`."""
        offset, code = self.fields[name]
        width = struct.calcsize(f"<{code}")
        numbers = memoryview(data).cast("I" if code == "I" else "Q")
        return numbers[offset // width :: self.size // width].tolist()

    def unpack(self, data: bytes) -> tuple[Any, ...]:
        """Return the fields by rising offset."""
        return self.struct.unpack(data)


HEADER = Record(
    4096,
    {
        "magic": (0, "8s"),
        "version": (8, "I"),
        "header_size": (12, "I"),
        "file_size": (16, "Q"),
        "pid": (24, "I"),
        "uid": (28, "I"),
        "start_time": (32, "Q"),
        "boot_id": (40, "40s"),
        "created_ns": (80, "Q"),
        "flags": (88, "I"),
        # of four sections: offset, record size, capacity, used, padding
        "sections": (96, "QIIIIQIIIIQIIIIQIIII"),
        "updated_ns": (192, "Q"),
        "startup": (208, "Q"),
        "startup_shared": (216, "Q"),
        "python": (256, "64s"),
        "command_len": (320, "I"),
        "command": (324, "3072s"),
    },
)

GROUP = Record(
    512,
    {
        "state": (0, "I"),
        "parent": (8, "I"),
        "tasks": (20, "I"),
        "dying": (28, "I"),
        "uid": (40, "Q"),
        "usage": (64, "q"),
        "max": (72, "q"),
        "high": (80, "q"),
        "low": (88, "q"),
        "peak": (96, "q"),
        "blocks": (104, "q"),
        # 6q and 5Q, unpacked when they are looked at
        "stat": (112, "48s"),
        "events": (160, "40s"),
        "seq": (208, "I"),
        "name_len": (212, "I"),
    },
)

# Of the stat, the first, "object", is not counted: it is what the others leave of the usage.
GROUP_STAT = struct.Struct("<6q")
# 256 bytes, most of them not used: a reader takes name_len of them.
GROUP_NAME = 256
GROUP_EVENTS = struct.Struct("<5Q")

OBJCG = Record(64, {"state": (0, "I"), "gid": (4, "I")})

TASK = Record(
    128,
    {
        "gid": (4, "I"),
        "state": (12, "I"),
        "id": (16, "Q"),
        "name_len": (28, "I"),
        "name": (32, "64s"),
    },
)

# What a tool outside needs besides, to ask for a change: generations, and where a request is.
GROUP_GEN = 4
TASK_GEN = 8
TASK_REQUEST = 104

STOCKS = 128
CPU = Record(64 + STOCKS * 64, {"state": (0, "I")})

# A slot of a cpu record, from byte 64 on. The key is an objcg's id << 1.
STOCK = Record(64, {"key": (0, "I"), "bytes": (8, "q"), "blocks": (16, "q"), "stat": (24, "5q")})
STOCKS_OFFSET = 64

# In the order of the header, with what a writer has room for.
SECTIONS = (GROUP, OBJCG, TASK, CPU)
CAPACITIES = (1 << 20, 1 << 21, 1 << 20, 1024)
SECTION_GROUP = 0
SECTION_TASK = 2
SECTION_HEADER = struct.Struct("<QIIII")
