"""zlib: a stream that compresses has the memory that zconf.h says, and a few KiB for its state.

Python gives zlib its own raw allocator, so this is seen without the native one.
"""

import zlib

from holding import hold

STREAMS, WINDOW_BITS, MEM_LEVEL = 100, 15, 8
# "(1 << (windowBits+2)) + (1 << (memLevel+9))"; and deflate_state, a struct of 6 KiB
BYTES = (1 << (WINDOW_BITS + 2)) + (1 << (MEM_LEVEL + 9)) + 5952


def make():
    streams = [zlib.compressobj(6, zlib.DEFLATED, WINDOW_BITS, MEM_LEVEL) for _ in range(STREAMS)]
    for stream in streams:
        stream.compress(b"some text " * 1000)
    return streams


hold(make, lambda streams: len(streams) * BYTES, version=zlib.ZLIB_RUNTIME_VERSION)
