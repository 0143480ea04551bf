"""`install()`: nirs4all keeps its workspaces in n4a_fast stores, without a change to its files.

Owns the exchange of the class `WorkspaceStore` in every loaded module that has nirs4all's under
that name, and a finder that does the same when nirs4all is imported later; both are undone by
`uninstall()`. nirs4all is never imported here, so installing costs nothing until it is used.
Promises that only a release whose calls are known is touched (`releases`). Leaves what nirs4all's callers
ask of a store beyond the documented API to `host_store` and `store_of_1x`, those who read past the
store to `readers`, and the rows that nirs4all keeps in memory to `prediction_rows`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from n4a_fast.integrations.nirs4all import prediction_rows, readers
from n4a_fast.integrations.nirs4all.hosting import hosted, is_of_1x
from n4a_fast.integrations.nirs4all.releases import (
    PACKAGE,
    found_version,
    metadata_version,
    require_release,
    require_surface,
)

_HOME = "nirs4all.pipeline.storage.workspace_store"  # where nirs4all defines the class that all others import
_NAME = "WorkspaceStore"
# parts of nirs4all that are changed beside the class, each by the module that knows how
_CHANGED: dict[str, ModuleType] = {**dict.fromkeys(readers.MODULES, readers), prediction_rows.MODULE: prediction_rows}
_ENVIRONMENT = (
    "n4a_fast_environment"  # the module, outside the package, that the environment variable lets Python import
)
_KEPT = "_n4a_fast_replaced"  # nirs4all's own class, kept in its home while ours is in place


def install() -> None:
    """From now on nirs4all stores runs with n4a_fast, whether it is imported already or will be; again is a no-op.

    Raises UnsupportedVersionError, and changes nothing, for a release that is not supported, or without nirs4all.
    Stores that nirs4all has open already stay what they are, and so do folders with a `store.sqlite` of its own.
    """
    require_release(found_version())
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
        _exchange(getattr(home, _NAME), vars(home).pop(_KEPT))
        for module in _loaded():
            _CHANGED[module.__name__].give_back(module)


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
        if fullname == PACKAGE and (version := metadata_version()) is not None:
            require_release(version)
        then = _take_over if fullname == _HOME else _CHANGED[fullname].exchange if fullname in _CHANGED else None
        if then is None:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(
            (found for finder in others if (found := finder.find_spec(fullname, path, target)) is not None), None
        )
        return spec and _with(spec, then)


def _with(spec: ModuleSpec, then: Callable[[ModuleType], None]) -> ModuleSpec:
    """The module, with something done to it once it is there."""
    loader = spec.loader
    if loader is not None:
        execute = loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            if then is _take_over or is_installed():
                then(module)

        # inspect and linecache keep the loader they know
        loader.exec_module = execute_and_change  # type: ignore[method-assign]
    return spec


def _take_over(home: ModuleType) -> None:
    if _KEPT in vars(home):
        return
    original = getattr(home, _NAME)
    require_surface(original)
    setattr(home, _KEPT, original)
    _exchange(original, hosted(original))
    if is_of_1x(original):
        for module in _loaded():
            _CHANGED[module.__name__].exchange(module)
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())  # for those that are imported later


def _loaded() -> list[ModuleType]:
    return [sys.modules[name] for name in _CHANGED if name in sys.modules]


def _exchange(old: type, new: type) -> None:
    """Bind `WorkspaceStore` to `new` in every loaded module, nirs4all's or a user's, where it is `old`."""
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get(_NAME) is old:
            setattr(module, _NAME, new)
    predictions = getattr(sys.modules.get(prediction_rows.MODULE), "Predictions", None)
    if predictions is not None and getattr(predictions, "_store_backend", None) is old:
        predictions.register_store_backend(new)
