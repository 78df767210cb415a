"""A frame: what one sample changes in the counters of all living groups, as bytes.

A frame is made of columns, one for each counter that changed in any group. A column has one number
for each living group, by rising `groups.id`: the difference to what was expected. Most are 0 or
small, so a column is cut into planes: the first bytes of all its numbers, then their second bytes,
and so on, up to the last that says anything. zlib does the rest, each plane with a code of its own.

Columns and not rows, since Python can add, compare and cut whole columns at once: a day of 1,000
groups is 86 million numbers.

    frame    zlib of: count, (column, width) * count, the planes of each column
    count    1 byte; column: 1 byte, its place in COLUMNS, rising; width: 1 byte, 1 to 8
    planes   width times one byte for each group, the least significant first; two's complement

Expected is

    of peak           the peak before, or the new current where that is more
    of stat.object    the new current less the five other domains
    of all others     the value before

where "before" is 0 in a key frame and in a group that is new. A counter is within +-MOST, so that
a difference fits 8 bytes.
"""

from __future__ import annotations

import operator
import sys
import zlib
from array import array
from typing import TYPE_CHECKING

from objcg import _layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLUMNS = (
    *("current", "peak", "max", "high", "low", "tasks"),
    *(f"events.{event}" for event in _layout.EVENTS),
    *(f"stat.{name}" for name in _layout.STATS),
)
"""What is recorded of a group. "max", "high" and "low" are UNSET where there is none."""

CURRENT, PEAK = 0, 1
EVENTS = COLUMNS.index("events.low")
STAT = COLUMNS.index("stat.object")
"""The columns from here on are in key frames only."""
_OTHER_DOMAINS = range(STAT + 1, STAT + len(_layout.DOMAINS))

UNSET = -1
MOST = 2**62 - 1

# Planes are noise or runs of one byte. Looking for anything else than runs takes two to four times
# as long, and what it finds in noise makes that larger by 5 %.
_ZLIB = (6, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)

_CODES = {1: "b", 2: "h", 4: "i", 8: "q"}
_SIGNS = bytes(128) + b"\xff" * 128
_BIG_ENDIAN = sys.byteorder == "big"


class FrameError(ValueError):
    """The bytes are no frame for that many groups."""


def encode(columns: Mapping[int, Sequence[int]]) -> bytes:
    """Return the frame of `columns`: differences by the place in COLUMNS; all of one length."""
    head = bytearray([0])
    planes: list[bytes] = []
    for column in sorted(columns):
        values = columns[column]
        if not any(values):
            continue
        highest, lowest = max(values), min(values)
        # and one bit for the sign
        width = (max(highest, ~lowest).bit_length() + 8) // 8
        size = _size(width)
        numbers = array(_CODES[size], values)
        if _BIG_ENDIAN:
            numbers.byteswap()
        data = numbers.tobytes()
        head[0] += 1
        head += bytes((column, width))
        planes.extend(data[place::size] for place in range(width))
    deflate = zlib.compressobj(*_ZLIB)
    parts = [deflate.compress(bytes(head))]
    for plane in planes:
        # the plane before had other numbers: a new block, and so a new code
        parts.extend((deflate.flush(zlib.Z_PARTIAL_FLUSH), deflate.compress(plane)))
    parts.append(deflate.flush())
    return b"".join(parts)


def decode(frame: bytes, groups: int) -> dict[int, list[int]]:
    """Return the differences in `frame`, of so many groups, by the place in COLUMNS.

    Columns in which nothing changed are not in it. Raises FrameError.
    """
    inflate = zlib.decompressobj()
    most = 1 + len(COLUMNS) * (2 + 8 * groups)
    try:
        data = inflate.decompress(frame, most)
    except zlib.error as error:
        raise FrameError(f"it cannot be decompressed: {error}") from error
    if not data or not inflate.eof or inflate.unused_data:
        raise FrameError("it is cut off, or longer than a frame can be")
    at = 1 + 2 * data[0]
    head = list(zip(data[1:at:2], data[2:at:2], strict=False))
    if len(head) != data[0] or len(data) != at + groups * sum(width for _, width in head):
        raise FrameError(f"it has {len(data)} bytes, which is not what {groups} groups have")
    found: dict[int, list[int]] = {}
    for column, width in head:
        if column >= len(COLUMNS) or column in found or not 1 <= width <= 8:
            raise FrameError(f"it has a column {column} of {width} bytes")
        size = _size(width)
        numbers = bytearray(size * groups)
        for place in range(width):
            plane = data[at : at + groups]
            numbers[place::size] = plane
            at += groups
        for place in range(width, size):
            numbers[place::size] = plane.translate(_SIGNS)
        values = array(_CODES[size], bytes(numbers))
        if _BIG_ENDIAN:
            values.byteswap()
        found[column] = values.tolist()
    return found


def expected_peak(before: Sequence[int], current: Sequence[int]) -> list[int]:
    """Return the peaks that are expected of groups with these peaks before and that usage now."""
    return list(map(max, before, current))


def expected_object(columns: Mapping[int, Sequence[int]]) -> list[int]:
    """Return what is expected of stat.object, given all other columns of a key frame."""
    rest = columns[CURRENT]
    for column in _OTHER_DOMAINS:
        rest = list(map(operator.sub, rest, columns[column]))
    return [max(-MOST, min(value, MOST)) for value in rest]


def _size(width: int) -> int:
    """Return the size of the machine's integer that has so many bytes."""
    return next(size for size in _CODES if size >= width)
