"""`install()`: nirs4all keeps its workspaces in n4a_fast stores, without a change to its files.

Owns the exchange of the class `WorkspaceStore` in every loaded module that has nirs4all's under
that name, and a finder that does the same when nirs4all is imported later; both are undone by
`uninstall()`. nirs4all is never imported here, so installing costs nothing until it is used.
Promises that only a version whose calls are known is touched. Leaves what nirs4all's callers
ask of a store beyond the documented API to `Nirs4allStore`.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from n4a_fast.errors import UnsupportedVersionError
from n4a_fast.integrations.nirs4all.host_store import Nirs4allStore

SUPPORTED = ("0.7.1",)
PACKAGE = "nirs4all"
_HOME = "nirs4all.pipeline.storage.workspace_store"  # where nirs4all defines the class that all others import
_NAME = "WorkspaceStore"
_ENVIRONMENT = (
    "n4a_fast_environment"  # the module, outside the package, that the environment variable lets Python import
)
_KEPT = "_n4a_fast_replaced"  # nirs4all's own class, kept in its home while ours is in place


def install() -> None:
    """From now on nirs4all stores runs with n4a_fast, whether it is imported already or will be; again is a no-op.

    Raises UnsupportedVersionError, and changes nothing, unless nirs4all 0.7.1 is installed.
    Stores that nirs4all has open already stay what they are.
    """
    _require_supported(_found_version())
    install_when_imported()


def install_when_imported() -> None:
    """Like `install`, for a program that may never import nirs4all: its version is looked at when it does."""
    home = sys.modules.get(_HOME)
    if home is not None:
        _take_over(home)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def uninstall() -> None:
    """nirs4all's own store is back wherever `install` had replaced it; stores that are open stay what they are."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not _waits(finder)]
    home = sys.modules.get(_HOME)
    if home is not None and _KEPT in vars(home):
        _exchange(Nirs4allStore, vars(home).pop(_KEPT))


def is_installed() -> bool:
    """Whether nirs4all uses, or will use once it is imported, this package's store."""
    home = sys.modules.get(_HOME)
    return _KEPT in vars(home) if home is not None else any(map(_waits, sys.meta_path))


def _waits(finder: object) -> bool:
    """Whether this is a finder that will exchange the class when nirs4all is imported."""
    return isinstance(finder, _Finder) or type(finder).__module__ == _ENVIRONMENT


class _Finder:
    """Sees nirs4all being imported: refuses a version that is not supported, and exchanges the class once it is
    defined.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == PACKAGE and (version := _metadata_version()) is not None:
            _require_supported(version)
        if fullname != _HOME:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(
            (found for finder in others if (found := finder.find_spec(fullname, path, target)) is not None), None
        )
        return spec and _taking_over(spec)


def _taking_over(spec: ModuleSpec) -> ModuleSpec:
    loader = spec.loader
    if loader is not None:
        execute = loader.exec_module

        def execute_and_take_over(module: ModuleType) -> None:
            execute(module)
            _take_over(module)

        # inspect and linecache keep the loader they know
        loader.exec_module = execute_and_take_over  # type: ignore[method-assign]
    return spec


def _take_over(home: ModuleType) -> None:
    if _KEPT in vars(home):
        return
    _require_supported(_found_version())
    original = getattr(home, _NAME)
    setattr(home, _KEPT, original)
    _exchange(original, Nirs4allStore)


def _exchange(old: type, new: type) -> None:
    """Bind `WorkspaceStore` to `new` in every loaded module, nirs4all's or a user's, where it is `old`."""
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get(_NAME) is old:
            setattr(module, _NAME, new)


def _found_version() -> str | None:
    """Of the nirs4all that is imported, or else the one that is installed; None without any."""
    loaded = getattr(sys.modules.get(PACKAGE), "__version__", None)
    return str(loaded) if loaded is not None else _metadata_version()


def _metadata_version() -> str | None:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def _require_supported(version: str | None) -> None:
    if version not in SUPPORTED:
        raise UnsupportedVersionError(PACKAGE, version, SUPPORTED)
