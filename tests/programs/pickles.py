"""Pickles objects of its own classes."""

import pickle
from dataclasses import dataclass


@dataclass
class Point:
    """A class of ``__main__``."""

    x: int
    y: int


def function() -> None:
    """Be pickled by name."""


data = pickle.dumps([Point(1, 2), function, Point], protocol=4)
print(data)
print(pickle.loads(data)[0], pickle.loads(data)[1] is function)
