"""What is run when the folder, or a zip of it, is the program."""

import sys

import beside

print(__name__, repr(__package__), sys.path[0], sys.argv, __file__)
print(type(__loader__).__name__, beside.VALUE, __spec__)
if "fail" in sys.argv:
    raise LookupError(beside.VALUE)
