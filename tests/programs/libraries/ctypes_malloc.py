"""ctypes: blocks of malloc() of three sizes; a thread that runs nothing but free() frees them."""

import ctypes
from array import array

from holding import hold

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
# pthread_create(thread, attributes, start, argument): free(block) is a start routine
libc.pthread_create.argtypes = [ctypes.c_void_p] * 4
libc.pthread_join.argtypes = [ctypes.c_ulong, ctypes.c_void_p]

SIZES = {1000: 8000, 20_000: 500, 1 << 20: 10}


class Blocks:
    def __init__(self):
        self.addresses = array("Q")
        for size, count in SIZES.items():
            for _ in range(count):
                address = libc.malloc(size)
                libc.memset(address, 1, size)
                self.addresses.append(address)

    def __del__(self):
        for address in self.addresses:
            libc.free(address)


def free_by_threads(blocks):
    free = ctypes.cast(libc.free, ctypes.c_void_p)
    thread = ctypes.c_ulong()
    while blocks.addresses:
        error = libc.pthread_create(ctypes.byref(thread), None, free, blocks.addresses.pop())
        assert error == 0
        libc.pthread_join(thread, None)


def expected(_):
    return sum(size * count for size, count in SIZES.items())


hold(Blocks, expected, needs="native", release_natively=free_by_threads)
