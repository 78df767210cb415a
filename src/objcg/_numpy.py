"""NumPy's arrays: charged from the moment in which NumPy's C module is there.

That module is waited for, and not `numpy`: arrays that NumPy makes while it is imported are charged
as well, and `numpy` itself is found and loaded as without objcg. NumPy is never imported here.
"""

from __future__ import annotations

from . import _core, _imports

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types

# From NumPy 2 on, and before.
_C_MODULES = ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath")


def install() -> None:
    """Have the data of arrays charged, now or once NumPy is imported. To be called once."""
    _imports.when_imported(_C_MODULES, _loaded)


def _loaded(module: types.ModuleType) -> None:
    api = getattr(module, "_ARRAY_API", None)
    set_hugepage = getattr(module, "_set_madvise_hugepage", None)
    hugepage = getattr(module, "_get_madvise_hugepage", set_hugepage)
    why = _core.install_numpy(api, hugepage)
    if why is not None:
        import warnings

        version = getattr(module, "__version__", None)
        warnings.warn(
            f"objcg does not charge the arrays of this NumPy ({version or 'of unknown version'}): "
            f"{why}",
            RuntimeWarning,
            stacklevel=2,
        )
