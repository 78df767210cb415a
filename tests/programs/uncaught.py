"""Ends with an exception that has a cause, a context and several frames."""


def outer(value: str) -> int:
    """Fail on the way."""
    try:
        return inner(value)
    except ValueError as error:
        raise RuntimeError("cannot go on") from error


def inner(value: str) -> int:
    """Fail."""
    try:
        return {}["key"]
    except KeyError:
        return int(value)


outer("no number")
