"""What -m package runs."""

import sys

from . import module

print(__name__, __package__, __spec__.name, sys.argv[1:], sys.path[0])
print(module.__name__, sys.argv[0])
if "fail" in sys.argv:
    module.fail()
