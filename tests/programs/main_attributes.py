"""Prints the attributes of its module, as a program can see them."""

import sys

import __main__

ANNOTATED: int = 1

names = sorted(name for name in vars(__main__) if name.startswith("__"))
for name in names:
    value = getattr(__main__, name)
    print(name, type(value).__name__, "" if name == "__builtins__" else repr(value))
print(__name__, sys.modules["__main__"] is __main__, __main__.__dict__ is globals())
print(type(__main__).__name__, sorted(set(globals()) - set(names)))
