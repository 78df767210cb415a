"""pyarrow: buffers from the C library's malloc() are what the memory pool has allocated.

Arrow's default pool (mimalloc or jemalloc, built into it) takes memory from the system in large
pieces and hands it out again: there, what is charged is what it took. So this asks for the pool
that uses malloc(). And its own threads are in no group, so nothing here is left to them.
"""

import pyarrow as pa
from holding import hold

ROWS = 100_000

pa.set_memory_pool(pa.system_memory_pool())
pa.set_cpu_count(1)


def make():
    numbers = pa.array(range(ROWS), type=pa.int64())
    texts = pa.array([f"{i:100}" for i in range(ROWS)])
    # copies: a cast from int64 to double cannot share
    floats = [numbers.cast(pa.float64()) for _ in range(20)]
    return [pa.table({"numbers": numbers, "texts": texts}), *floats]


def expected(_):
    return pa.total_allocated_bytes()


hold(make, expected, needs="native", version=pa.__version__)
