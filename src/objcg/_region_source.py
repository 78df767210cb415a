"""Where a region's bytes come from, and its sections: bounds are checked here."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Protocol

from . import _layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

# Records read at a time: little enough that memory for them is not mapped anew each time.
MOST_AT_ONCE = 240


class RegionError(Exception):
    """A file is not a region, is damaged, or cannot be read; the text says which and where."""


class Source(Protocol):
    size: int

    def read(self, offset: int, size: int) -> bytes: ...

    def extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of what is not a hole, which reads as zeros."""
        ...


class BufferSource:
    def __init__(self, data: Buffer) -> None:
        self._view = memoryview(data).cast("B")
        self.size = self._view.nbytes

    def read(self, offset: int, size: int) -> bytes:
        return self._view[offset : offset + size].tobytes()

    def extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        yield start, end


class FileSource:
    """Reads by pread(): a mapping of a file that somebody cuts short would be a SIGBUS."""

    def __init__(self, fd: int) -> None:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            msg = "it is not a regular file"
            raise RegionError(msg)
        self._fd = fd
        self.size = info.st_size

    def read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        while len(data) < size:
            more = os.pread(self._fd, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield what the file system has stored.

        A region is sparse, of nearly a gigabyte; whatever its header claims to be in use, no more
        is read than somebody has paid for.
        """
        while start < end:
            try:
                start = os.lseek(self._fd, start, os.SEEK_DATA)
                hole = os.lseek(self._fd, start, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return  # nothing but a hole up to the end
                hole = end  # a file system that does not know
            if start < end:
                yield start, min(hole, end)
            start = hole


class Section:
    """The records of one kind; `most` is how many of them a writer has room for."""

    def __init__(
        self, source: Source, name: str, record: _layout.Record, most: int, place: tuple[int, ...]
    ) -> None:
        offset, record_size, capacity, used, _ = place
        if record_size != record.size:
            msg = f"{name} records have {record_size} bytes; layout version 1 has {record.size}"
            raise RegionError(msg)
        if used > capacity or used > most:
            msg = f"{used} {name} records are in use, but there is room for {min(capacity, most)}"
            raise RegionError(msg)
        if offset < _layout.HEADER.size or offset + used * record_size > source.size:
            msg = f"the {name} records at {offset} are outside of the file's {source.size} bytes"
            raise RegionError(msg)
        self._source = source
        self._offset = offset
        self._name = name
        self.record = record
        self.used = used  # when the header was read: there may be more by now
        self.capacity = min(capacity, most)

    def read(self, index: int, count: int = 1) -> bytes:
        """Return the bytes of `count` records from `index` on."""
        size = count * self.record.size
        data = self._source.read(self._offset + index * self.record.size, size)
        if len(data) != size:
            msg = f"it ends within the {self._name} records"
            raise RegionError(msg)
        return data

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Yield (index, count) of pieces that are small enough to read at once.

        What lies in a hole of the file is left out: those records are all zeros, and of nothing.
        """
        size = self.record.size
        done = 0
        end = self._offset + self.used * size
        for start, stop in self._source.extents(self._offset, end):
            index = max(done, (start - self._offset) // size)
            done = min(self.used, -((self._offset - stop) // size))
            while index < done:
                count = min(MOST_AT_ONCE, done - index)
                yield index, count
                index += count
