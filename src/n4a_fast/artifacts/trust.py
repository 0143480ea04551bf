"""Which globals a stored pickle may import, by the store's `trusted=` setting and where the artifact came from.

Unpickling runs whatever the pickle names, so a name is asked about before its module is imported. "workspace" lets
what this workspace saved or registered itself load freely; what came through an import gets classes of
well-known packages, numpy's ufuncs and a few named constructors, no other functions. A list of module prefixes
holds for every artifact; "none" loads nothing. This narrows what a pickle can do and is no sandbox: classes
that are let in still run their own `__setstate__`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from types import ModuleType
from typing import Any

import numpy as np

from n4a_fast.artifacts import codec, guarded, model_files
from n4a_fast.artifacts.pickles import contents_of
from n4a_fast.errors import InvalidInputError, UntrustedArtifactError

WORKSPACE, NONE = "workspace", "none"
OWN_ORIGINS = ("saved", "registered", "promised")

# makers of plain values, let in by every setting but "none"
_BUILTINS = "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple"
_DATETIME = "date datetime time timedelta timezone"
_PLAIN = frozenset(
    {f"builtins.{name}" for name in _BUILTINS.split()}
    | {f"datetime.{name}" for name in _DATETIME.split()}
    | {
        "collections.OrderedDict",
        "collections.defaultdict",
        "collections.deque",
        "copyreg._reconstructor",
        "_codecs.encode",
    }
    | {"decimal.Decimal", "fractions.Fraction", "uuid.UUID"}
)
# modules whose classes may come in through an import: none of them opens a file or runs code by being made
_KNOWN_MODULES = (
    "catboost.core",
    "chemotools",
    "lightgbm.basic",
    "lightgbm.sklearn",
    "nirs4all.operators",
    "numpy.dtypes",
    "numpy.random",
    "pandas._libs",
    "pandas.core.arrays",
    "pandas.core.dtypes",
    "pandas.core.frame",
    "pandas.core.indexes",
    "pandas.core.internals",
    "pandas.core.series",
    "pybaselines",
    "scipy.interpolate",
    "scipy.sparse",
    "scipy.spatial",
    "scipy.stats",
    "sklearn",
    "xgboost.core",
    "xgboost.sklearn",
)
_KNOWN_NUMPY = ("numpy.dtype", "numpy.ndarray", "numpy.matrix", "numpy.ma.MaskedArray")
_KNOWN_FUNCTIONS = frozenset(
    {
        f"numpy.{core}.{name}"
        for core in ("core", "_core")
        for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
    }
    | {f"numpy.random._pickle.__{name}_ctor" for name in ("generator", "bit_generator", "randomstate")}
    | {"numpy.mean", "numpy.median", "numpy.random.bit_generator.__pyx_unpickle_SeedSequence"}
    | {f"sklearn.feature_selection._univariate_selection.{name}" for name in ("f_classif", "f_regression", "chi2")}
    | {
        "sklearn.metrics._dist_metrics.newObj",
        "sklearn.neighbors._kd_tree.newObj",
        "sklearn.neighbors._ball_tree.newObj",
    }
    | {"pandas._libs.internals._unpickle_block", "pandas.core.indexes.base._new_Index"}
)


@dataclass(frozen=True, slots=True)
class Trust:
    """The `trusted=` setting of a store; `prefixes` is None for "workspace", empty for "none"."""

    prefixes: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return repr(WORKSPACE) if self.prefixes is None else repr(list(self.prefixes)) if self.prefixes else repr(NONE)

    def loads(
        self,
        artifact_id: str,
        data: bytes | memoryview,
        format_name: str,
        origin: str | None,
        operator_class: str = "",
    ) -> Any:
        """The object in verified `data`; UntrustedArtifactError, before it is imported, for a global, or the library of
        a model file, that is not allowed.
        """
        if model_files.library_of(format_name) is not None:
            return self._loads_model(artifact_id, data, format_name, origin, operator_class)
        if self.prefixes is None and origin in OWN_ORIGINS:
            return codec.loads(data, format_name, plain=origin == "saved")
        if self.prefixes == ():
            raise UntrustedArtifactError(artifact_id, _first_global(data), str(self))

        def import_global(module: str, name: str) -> Any:
            found = self._import(module, name)
            if found is None:
                raise UntrustedArtifactError(artifact_id, f"{module}.{name}", str(self))
            return found

        return guarded.loads(data, import_global)

    def _loads_model(
        self, artifact_id: str, data: bytes | memoryview, format_name: str, origin: str | None, operator_class: str
    ) -> Any:
        library = str(model_files.library_of(format_name))
        allowed = origin in OWN_ORIGINS if self.prefixes is None else _is_below(library, self.prefixes)
        if not allowed:
            raise UntrustedArtifactError(artifact_id, library, str(self))
        return model_files.load(data, format_name, operator_class)

    def _import(self, module: str, name: str) -> Any:
        """The global, None when it is not allowed; its module is imported only if its name is."""
        known = self.prefixes is None
        path = f"{module}.{name}"
        if path in _PLAIN or (known and path in _KNOWN_FUNCTIONS):
            return _imported(module, name)
        prefixes = (*_KNOWN_MODULES, "numpy") if self.prefixes is None else self.prefixes
        if not _is_below(module, prefixes):
            return None
        found = _imported(module, name)
        if known and isinstance(found, np.ufunc):
            return found
        home = getattr(found, "__module__", None)  # a module offers what it imported itself, too
        if known:
            return found if isinstance(found, type) and _is_known_class(found) else None
        return None if isinstance(found, ModuleType) or not (home is None or _is_below(str(home), prefixes)) else found


def trust(setting: str | Iterable[str]) -> Trust:
    """The checked `trusted=` setting."""
    if setting == WORKSPACE:
        return Trust()
    if setting == NONE:
        return Trust(())
    prefixes = () if isinstance(setting, str | bytes) or not isinstance(setting, Iterable) else tuple(setting)
    if not prefixes or not all(
        isinstance(prefix, str) and prefix.replace(".", "a").isidentifier() for prefix in prefixes
    ):
        raise InvalidInputError(
            f'trusted must be "{WORKSPACE}", "{NONE}" or a list of module names such as ["sklearn", "numpy"], got'
            f" {setting!r}"
        )
    return Trust(tuple(dict.fromkeys(prefixes)))


def _first_global(data: bytes | memoryview) -> str:
    try:
        return next(iter(contents_of(data).globals), "nothing")
    except InvalidInputError:
        return "what cannot be told"


def _is_known_class(found: type) -> bool:
    module = found.__module__
    if module.partition(".")[0] == "numpy":
        return (
            issubclass(found, np.generic)
            or f"{module}.{found.__qualname__}" in _KNOWN_NUMPY
            or _is_below(module, ("numpy.random", "numpy.dtypes"))
        )
    return _is_below(module, _KNOWN_MODULES)


def _is_below(module: str, prefixes: Iterable[str]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def _imported(module: str, name: str) -> Any:
    return reduce(getattr, name.split("."), importlib.import_module(module))
