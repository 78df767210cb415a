"""NumPy: the bytes of arrays, large and small, are what `nbytes` says."""

import numpy as np
from holding import hold

LARGE = [(512, 1024), (1000, 1000)]


def make():
    arrays = [np.ones(shape) for shape in LARGE for _ in range(2)]
    arrays += [np.zeros((300, 1000), dtype=np.int32) + 1 for _ in range(8)]
    # grown by realloc(), and views that hold no memory of their own
    grown = np.ones(1000)
    grown.resize(500_000, refcheck=False)
    grown += 1
    return [*arrays, grown, arrays[0][::2], arrays[0].T]


hold(
    make,
    lambda arrays: sum(array.nbytes for array in arrays if array.base is None),
    version=np.__version__,
)
