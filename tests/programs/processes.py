"""Computes in other processes, started by the method that its argument names."""

import multiprocessing
import sys


class Number:
    """A class of ``__main__`` that travels between the processes."""

    def __init__(self, value: int) -> None:
        self.value = value


def square(number: Number) -> Number:
    """Square it."""
    return Number(number.value**2)


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with context.Pool(2) as pool:
        print([number.value for number in pool.map(square, map(Number, range(10)))])
    process = context.Process(target=sys.exit, args=(4,))
    process.start()
    process.join()
    print(process.exitcode)
