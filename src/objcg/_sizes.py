"""Sizes of memory: read them as the kernel does, write them for people.

The suffixes are those of the kernel's ``memparse()`` (lib/cmdline.c), with an optional ``iB``; all
are powers of two.
"""

from __future__ import annotations

from _operator import index  # what `operator` is made of; most programs need no more of it

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import SupportsIndex, TypeAlias

Size: TypeAlias = "SupportsIndex | str | None"

# The core keeps limits as signed 64-bit counters; the largest value stands for "no limit".
NO_LIMIT = 2**63 - 1
LARGEST = NO_LIMIT - 1

ACCEPTED = (
    'accepted are a whole number of bytes >= 0, text such as "512M" or "1.5 GiB" '
    '(K, M, G or T, with or without "iB"), and "max" or None for no limit'
)
ACCEPTED_BYTES = (
    'accepted are a whole number of bytes >= 0 or text such as "512M" or "1.5 GiB" '
    '(K, M, G or T, with or without "iB")'
)

_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_SPACES = " \t\n\r\f\v"
# More digits than any accepted size has; int() of very long text is slow, or refused by Python.
_LONGEST_TEXT = 64
_LONGEST_SHOWN = 200


def parse_limit(value: Size, what: str) -> int | None:
    """Return the limit in bytes that `value` stands for; None is no limit.

    `what` names the value in errors, for example ``"memory.max"``.

    Raises TypeError or ValueError naming `what`, the value and what is accepted.
    """
    if value is None or (isinstance(value, str) and value.strip() == "max"):
        return None
    return _parse(value, what, ACCEPTED)


def parse_protection(value: Size, what: str) -> int | None:
    """Return the bytes that `value` stands for; None is no protection, and "max" is not accepted.

    Raises TypeError or ValueError naming `what`, the value and what is accepted.
    """
    if value is None:
        return None
    return _parse(value, what, f"{ACCEPTED_BYTES}, and None for no protection")


def parse_bytes(value: SupportsIndex | str, what: str) -> int:
    """Return the number of bytes that `value` stands for; "max" and None are not accepted.

    Raises TypeError or ValueError naming `what`, the value and what is accepted.
    """
    return _parse(value, what, ACCEPTED_BYTES)


def _parse(value: object, what: str, accepted: str) -> int:
    if isinstance(value, str):
        size = _parse_text(value, what, accepted)
    elif isinstance(value, bool) or not hasattr(value, "__index__"):
        msg = f"{what}: {_shown(value)} is a {type(value).__name__}, not a size; {accepted}"
        raise TypeError(msg)
    else:
        size = index(value)
    if size < 0:
        msg = f"{what}: {_shown(value)} is negative; {accepted}"
        raise ValueError(msg)
    if size > LARGEST:
        msg = f"{what}: {_shown(value)} is more than 2**63 - 2 bytes; {accepted}"
        raise ValueError(msg)
    return size


def _shown(value: object) -> str:
    """Return the value for an error: the beginning of it, where it is long."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - Python refuses to write ints of thousands of digits
        return f"this {type(value).__name__}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _take_apart(text: str) -> tuple[str, str, str] | None:
    """Return the digits before and after the point, and K, M, G, T or nothing; None: no size.

    By hand: the module `re` is larger than all of objcg.
    """
    if len(text) > _LONGEST_TEXT or not text.isascii():
        return None
    number = text.strip(_SPACES).upper()
    suffix = number.removesuffix("IB")[-1:]
    if suffix not in _SHIFTS:
        if number.endswith("IB"):
            return None
        suffix = ""
    else:
        number = number.removesuffix("IB")[:-1].rstrip(_SPACES)
    whole, point, fraction = number.partition(".")
    if not whole.isdigit() or (point and not fraction.isdigit()):
        return None
    return whole, fraction, suffix


def _parse_text(text: str, what: str, accepted: str) -> int:
    parts = _take_apart(text)
    if parts is None:
        msg = f"{what}: {text[:_LONGEST_TEXT]!r} is not a size; {accepted}"
        raise ValueError(msg)
    whole, fraction, suffix = parts
    scale: int = 10 ** len(fraction)
    size, rest = divmod(int(whole + fraction) << _SHIFTS[suffix], scale)
    if rest:
        msg = f"{what}: {text!r} is not a whole number of bytes; {accepted}"
        raise ValueError(msg)
    return size


def format_size(size: int) -> str:
    """Return `size` (bytes) for people to read: ``"512 B"``, ``"34.1 MiB"``."""
    if abs(size) < 1 << 10:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        # 1023.95 would be shown as 1024.0 of this unit
        if abs(value) < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"
