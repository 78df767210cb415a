"""Modules that a program may import later, or never: what is to be done once it has.

Importing them here would cost every program their time and memory. So `sys.meta_path` gets one
finder, which finds those modules where the others do, and hands them on when they have been
executed. It goes when there is nothing left to wait for.

Guarantees:
- The program sees the module's own loader, in `__spec__` and `__loader__`, once it is loaded.
- `importlib.util.find_spec()` alone leads to nothing; an import that fails is waited for again.
- An import ends as it would have, whatever the callback raises: that goes to `sys.unraisablehook`.

Assumes that nobody finds the module before the finders of `sys.meta_path` are asked.
"""

from __future__ import annotations

import sys

from . import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from typing import Any

    _Callback = Callable[[types.ModuleType], object]


def when_imported(names: tuple[str, ...], callback: _Callback) -> None:
    """Call `callback` with the first of these modules that is loaded, now or when it is."""
    for name in names:
        module = sys.modules.get(name)
        if module is not None:
            callback(module)
            return
    for name in names:
        _waiting[name] = names, callback
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


class _Finder:
    """Finds the modules that are waited for, as the other finders do, and nothing else."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname not in _waiting:
            return None
        for finder in tuple(sys.meta_path):
            find_spec = getattr(finder, "find_spec", None)
            if find_spec is None or finder is self:
                continue
            spec: ModuleSpec | None = find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    # shaped like a Loader; importlib.abc itself is too large to import for this
                    spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """Loads as the module's own loader does, and leaves no trace of itself."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _imported(module)


# By name: all the names that the callback waits for, and the callback.
_waiting: dict[str, tuple[tuple[str, ...], _Callback]] = {}
_finder = _Finder()


def _imported(module: types.ModuleType) -> None:
    # one step under the GIL: of two threads that come here one gets it
    names, callback = _waiting.pop(module.__name__, ((), None))
    if callback is None:
        return
    for name in names:
        _waiting.pop(name, None)
    if not _waiting and _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    try:
        callback(module)
    except Exception as error:  # noqa: BLE001  # the program's import has nothing to do with it
        _core.write_unraisable(error, callback)
