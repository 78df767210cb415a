"""Damages a region file in many ways, and reads it after each: FILE ROUNDS SEED.

Ends with 0 and prints how often it was read and how often refused; or with the damage that made
the reader fail, hang (5 s of CPU), take more than 100 MB, or return a tree that makes no sense.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys

from objcg import region

MEMORY = 100 << 20
SECONDS = 5.0
# what lies in wait for arithmetic
NUMBERS = [0, 1, 2, 3, 127, 128, 255, 256, 2**16, 2**20, 2**21, 2**31 - 1, 2**31, 2**32 - 1]
LONG_NUMBERS = [*NUMBERS, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 4096]
HEADER = 4096
FIELDS = range(8, 240, 4)
RECORD_SIZES = {"group": 512, "objcg": 64, "task": 128, "cpu": 8256}


class File:
    """A region file, whose data can be put back."""

    def __init__(self, path):
        self.path = path
        self.fd = os.open(path, os.O_RDWR)
        self.size = os.fstat(self.fd).st_size
        self.extents = []
        at = 0
        while at < self.size:
            try:
                at = os.lseek(self.fd, at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(self.fd, at, os.SEEK_HOLE)
            self.extents.append((at, os.pread(self.fd, end - at, at)))
            at = end
        self.sections = []
        header = self.extents[0][1]
        for i in range(4):
            place = header[96 + 24 * i :]
            offset = int.from_bytes(place[:8], "little")
            size, _, used = (int.from_bytes(place[n : n + 4], "little") for n in (8, 12, 16))
            self.sections.append((offset, size, used))

    def put(self, at, data):
        os.pwrite(self.fd, data, at)

    def restore(self):
        # to nothing first: what was written into holes has to go
        os.ftruncate(self.fd, 0)
        os.ftruncate(self.fd, self.size)
        for at, data in self.extents:
            os.pwrite(self.fd, data, at)


def number(rng, size):
    choice = rng.choice(LONG_NUMBERS if size == 8 else NUMBERS)
    return (choice % 2 ** (8 * size)).to_bytes(size, "little")


def record(rng, file, kind=None):
    """Choose a record in use, and return where it is and how long."""
    offset, size, used = file.sections[rng.randrange(4) if kind is None else kind]
    return offset + size * rng.randrange(max(used, 1)), size


def flip_bits(rng, file):
    for _ in range(rng.randrange(1, 9)):
        at, size = (0, 400) if rng.random() < 0.3 else record(rng, file)
        at += rng.randrange(size)
        (byte,) = os.pread(file.fd, 1, at) or b"\0"  # cut off before
        file.put(at, bytes([byte ^ (1 << rng.randrange(8))]))


def truncate(rng, file):
    ends = [end for at, data in file.extents for end in (at, at + len(data))]
    end = rng.choice([rng.choice(ends), rng.randrange(file.size), rng.randrange(HEADER + 1)])
    os.ftruncate(file.fd, max(0, min(file.size, end + rng.randrange(-64, 64))))


def hostile_header(rng, file):
    for _ in range(rng.randrange(1, 4)):
        at = rng.choice(FIELDS)
        file.put(at, number(rng, rng.choice([4, 8])))


def hostile_counts(rng, file):
    """Everything that there is room for is in use, as the header has it."""
    for i in range(4):
        if rng.random() < 0.7:
            capacity = os.pread(file.fd, 4, 96 + 24 * i + 12)
            file.put(96 + 24 * i + 16, capacity)


def hostile_numbers(rng, file):
    for _ in range(rng.randrange(1, 6)):
        at, size = record(rng, file)
        file.put(at + 4 * rng.randrange(size // 4), number(rng, 4))


def cyclic_parents(rng, file):
    _, _, used = file.sections[0]
    for _ in range(rng.randrange(1, 4)):
        at, _ = record(rng, file, kind=0)
        file.put(at + 8, rng.randrange(used + 2).to_bytes(4, "little"))
    if rng.random() < 0.3:
        # so that age does not tell
        at, _ = record(rng, file, kind=0)
        file.put(at + 40, number(rng, 8))


def deep_chain(rng, file):
    """Long names in a chain as long as there are records, all of them as the reader likes it."""
    offset, size, used = file.sections[0]
    count = rng.choice([used, 3000])
    name = rng.choice([b"x" * 255, b"\xf0\x9f\x92\xa9" * 63, b"\xff" * 255, b"y"])
    chain = rng.choice([1, 100, 126, 10**9])
    for gid in range(2, count):
        parent = gid - 1 if (gid - 1) % chain else 1
        head = b"".join(n.to_bytes(4, "little") for n in (1, 0, max(parent, 1)))
        file.put(offset + gid * size, head)
        file.put(offset + gid * size + 40, (10**6 + gid).to_bytes(8, "little"))
        file.put(offset + gid * size + 208, (0).to_bytes(4, "little"))
        file.put(offset + gid * size + 212, len(name).to_bytes(4, "little") + bytes(40) + name)
    file.put(96 + 16, count.to_bytes(4, "little"))


def odd_sequences(rng, file):
    offset, size, used = file.sections[0]
    for gid in range(used):
        file.put(offset + gid * size + 208, b"\1")


def many_stocks(rng, file):
    offset, size, _ = file.sections[3]
    _, _, objcgs = file.sections[1]
    for cpu in range(rng.choice([2, 40])):
        record = b"\1" + bytes(63)
        for _ in range(128):
            record += (
                (rng.randrange(objcgs) << 1).to_bytes(8, "little") + number(rng, 8) + bytes(48)
            )
        file.put(offset + cpu * size, record)
        file.put(96 + 24 * 3 + 16, (cpu + 1).to_bytes(4, "little"))


USUAL = [flip_bits, truncate, hostile_header, hostile_counts, hostile_numbers, cyclic_parents]
# each writes a lot: fewer of these
RARE = [deep_chain, odd_sequences, many_stocks]


def check(found):
    """Fail unless the tree makes sense."""
    paths = {group.path for group in found.groups}
    assert len(paths) == len(found.groups), "two groups of one path"
    assert "/" in paths, "no root"
    for path in paths:
        assert path == "/" or (path.rpartition("/")[0] or "/") in paths, "no parent"
        assert path.count("/") <= 128, "too deep"
    assert found.tree()[0].path == "/"
    assert len(found.tree()) == len(found.groups)
    assert all(task.group in paths for task in found.tasks)
    json.dumps(found.to_json())


def main(path, rounds, seed):
    file = File(path)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as statm:
        size = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, hard))

    def too_long(*_):
        raise TimeoutError

    signal.signal(signal.SIGPROF, too_long)
    read = refused = 0
    for turn in range(rounds):
        rng = random.Random(f"{seed} {turn}")
        kinds = [rng.choice(RARE if turn % 50 == 0 else USUAL)]
        if rng.random() < 0.3:
            kinds.append(rng.choice(USUAL))
        try:
            for kind in kinds:
                kind(rng, file)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                check(region.read(path, tasks=True))
                read += 1
            except region.RegionError as error:
                if not str(error).startswith(f"{path}: "):
                    raise
                refused += 1
            signal.setitimer(signal.ITIMER_PROF, 0)
        except BaseException as error:
            names = ", ".join(kind.__name__ for kind in kinds)
            print(f"round {turn} of seed {seed}: {names}: {error!r}", flush=True)
            raise
        file.restore()
    print(read, refused)


main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
