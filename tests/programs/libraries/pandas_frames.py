"""pandas: a frame of numbers and the results of its methods are what `memory_usage()` says."""

import numpy as np
import pandas as pd
from holding import hold

ROWS, COLUMNS = 300_000, 8


def make():
    # one block of one dtype, so that nothing is copied into place
    numbers = np.arange(ROWS * COLUMNS, dtype=float).reshape(COLUMNS, ROWS).T
    frame = pd.DataFrame(numbers, columns=[f"column {i}" for i in range(COLUMNS)], copy=False)
    means = frame.groupby(np.arange(ROWS) % 1000).mean()
    return [frame, frame * 2, means]


def expected(frames):
    return sum(int(frame.memory_usage(deep=True).sum()) for frame in frames)


hold(make, expected, version=pd.__version__)
