"""Warns in ways that depend on where the code is thought to be."""

import asyncio
import warnings


async def never_awaited() -> None:
    """Do nothing."""


def main() -> None:
    """Warn."""
    warnings.warn("shown in __main__ only", DeprecationWarning, stacklevel=1)
    warnings.warn("of the caller", UserWarning, stacklevel=2)
    never_awaited()


main()
asyncio.run(never_awaited())
