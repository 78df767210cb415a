"""Prints what a program is given."""

import sys

print(sys.argv)
print(sys.path[0])
print(sys.flags)
print(sys.executable)
