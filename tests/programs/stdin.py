"""Reads standard input in two ways."""

import sys

first = input("prompt> ")
rest = sys.stdin.read()
print(repr(first), repr(rest), sys.stdin.isatty())
