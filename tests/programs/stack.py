"""Shows which frames it has."""

import inspect
import sys
import traceback


def function() -> None:
    """Print the stack, and the outermost frame."""
    traceback.print_stack()
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
    print(frame.f_code.co_name, frame.f_code.co_filename, len(inspect.stack()))


function()
