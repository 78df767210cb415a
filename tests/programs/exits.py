"""Ends in the way its argument names."""

import os
import sys


class Refused(SystemExit):
    """An exit of our own."""


def end(how: str) -> None:
    """End the program."""
    if how == "by-raise":
        raise SystemExit
    if how == "subclass":
        raise Refused(5)
    if how == "at-once":
        os._exit(9)
    statuses = {
        "none": None,
        "zero": 0,
        "seven": 7,
        "text": "exits: a text",
        "empty-text": "",
        "tuple": (1, 2),
        "negative": -1,
        "beyond": 256 + 3,
        "true": True,
        "float": 1.5,
    }
    sys.exit(statuses[how])


print("before")
if sys.argv[1] != "fall-off":
    end(sys.argv[1])
