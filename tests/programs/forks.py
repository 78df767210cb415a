"""Forks, and both processes go on to the end of the program."""

import atexit
import os
import sys

atexit.register(print, "at exit")
sys.stdout.flush()
child = os.fork()
if child == 0:
    print("child")
    sys.exit(6)
_, status = os.waitpid(child, 0)
print("parent saw", os.waitstatus_to_exitcode(status))
