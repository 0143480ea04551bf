"""What may be loaded, by the store's `trusted=` setting and where it came from.

"workspace" lets what this workspace saved or registered itself load freely; what came through an import gets what is
on the default list. A list of classes, or `package.*` for the estimators of a package, adds to the default list and
holds for every artifact; "none" loads nothing. Names are decided on before the first of them is imported, by what the
pickle would do with them: only what the list says may be called is called, and no class or function is changed.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

from n4a_fast._native import opcodes
from n4a_fast.artifacts import codec, model_files
from n4a_fast.artifacts.pickles import JOBLIB_ARRAY, Use, contents_of, walking_room
from n4a_fast.artifacts.trust import guarded, known
from n4a_fast.artifacts.trust.names import imported, imported_by_path
from n4a_fast.errors import ArtifactUnreadableError, InvalidInputError, UntrustedArtifactError

WORKSPACE, NONE = "workspace", "none"
OWN_ORIGINS = ("saved", "registered", "promised")

_CALLED, _CHANGED, _FILLED = int(Use.CALLED | Use.MADE_WITH), int(Use.CHANGED), int(Use.FILLED)


@dataclass(frozen=True, slots=True)
class Trust:
    """The `trusted=` setting of a store; `entries` is None for "workspace", empty for "none"."""

    entries: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return repr(WORKSPACE) if self.entries is None else repr(list(self.entries)) if self.entries else repr(NONE)

    @property
    def of_strangers(self) -> Trust:
        """The same for what came from outside, wherever it lies: by default the default list, of which this is one."""
        return Trust(("builtins.range",)) if self.entries is None else self

    def loads(
        self,
        artifact_id: str,
        data: bytes | memoryview,
        format_name: str,
        origin: str | None,
        operator_class: str = "",
    ) -> Any:
        """The object in verified `data`.

        UntrustedArtifactError, before anything is imported, for a global or the library of a model file that is not
        allowed; ArtifactUnreadableError for what came from outside and is no sound object.
        """
        is_own = self.entries is None and origin in OWN_ORIGINS
        if model_files.library_of(format_name) is not None:
            return self._loads_model(artifact_id, data, format_name, is_own, operator_class)
        if is_own:
            return codec.loads(data, format_name, plain=origin == "saved")
        if self.entries == ():
            raise UntrustedArtifactError(artifact_id, _first_global(data), str(self))
        return guarded.loads(data, _Rules(self, artifact_id))

    def class_named(self, path: str) -> Any:
        """The class of a step that was stored without an artifact, by its full name.

        Only estimators are made by name, and with a list or "none" only those that may be loaded from a file.
        UntrustedArtifactError for others; ImportError or AttributeError when there is none of this name.
        """
        if self.entries is not None and not self._may_look_for(path):
            raise UntrustedArtifactError(None, path, str(self))
        found = imported_by_path(path)
        if self.entries is None and not isinstance(found, type):
            return found  # no class at all, which the caller tells by its step
        if not _is_estimator(found) or (self.entries is not None and not self._allows(_full_name(found), found)):
            raise UntrustedArtifactError(None, path, str(self))
        return found

    def _may_look_for(self, path: str) -> bool:
        """Whether the module of a name may be imported at all."""
        entries = self.entries or ()
        module = path.rpartition(".")[0]
        return bool(entries) and (
            module in known.listed_modules() or path in entries or known.is_below(path, _packages(entries))
        )

    def _allows(self, path: str, found: Any = None) -> bool:
        """Whether a global may be imported; `found`, once it is, must be what a package entry means by that."""
        entry, entries = known.listed().get(path), self.entries or ()
        if entry in (known.CALL, known.MAKE) or path in entries:
            return True
        return (
            not known.is_denied(path)
            and known.is_below(path, _packages(entries))
            and (found is None or _is_estimator(found))
        )

    def _may_call(self, path: str) -> bool:
        return known.listed().get(path) == known.CALL or path in (self.entries or ())

    def _loads_model(
        self, artifact_id: str, data: bytes | memoryview, format_name: str, is_own: bool, operator_class: str
    ) -> Any:
        library = str(model_files.library_of(format_name))
        if not is_own and library not in _packages(self.entries or ()):
            raise UntrustedArtifactError(artifact_id, library, str(self))
        return model_files.load(data, format_name, operator_class)


@dataclass(frozen=True, slots=True)
class _Rules:
    """The setting as one load asks it; every refusal names the artifact."""

    trust: Trust
    artifact_id: str

    def require(self, module: str, name: str, uses: int = 0) -> None:
        """UntrustedArtifactError unless this global may be imported and used so."""
        if not _may_use(self.trust.entries, f"{module}.{name}", uses):
            raise UntrustedArtifactError(self.artifact_id, f"{module}.{name}", str(self.trust))

    def require_all(self, data: bytes | memoryview) -> tuple[guarded.Builds, guarded.Arrays]:
        """The same for every global of a pickle, before any of them is imported; where it gives state to what it has
        called, and where joblib's arrays lie.
        """
        try:
            uses, _, builds, arrays = opcodes.scan(data, walking_room(len(data)))
        except ValueError as error:
            raise ArtifactUnreadableError(self.artifact_id, str(error)) from error
        for (module, name), used in uses.items():
            if used or (module, name) != JOBLIB_ARRAY:
                self.require(module, name, used)
        return builds, arrays

    def imported(self, module: str, name: str) -> Any:
        """A global that was asked about."""
        if (found := _imported(self.trust.entries, module, name)) is None:
            raise UntrustedArtifactError(self.artifact_id, f"{module}.{name}", str(self.trust))
        return found

    def unreadable(self, error: BaseException) -> ArtifactUnreadableError:
        return ArtifactUnreadableError.of(self.artifact_id, error)


@lru_cache(maxsize=4096)
def _imported(entries: tuple[str, ...] | None, module: str, name: str) -> Any:
    """A global that may be imported by its name; None for one that is not what its name says."""
    found = imported(module, name)
    return None if isinstance(found, ModuleType) or not Trust(entries)._allows(f"{module}.{name}", found) else found


@lru_cache(maxsize=4096)
def _may_use(entries: tuple[str, ...] | None, path: str, uses: int) -> bool:
    """Whether a global may be imported and used so: asked for each name of each file."""
    setting = Trust(entries)
    may = setting._allows(path) and not uses & _CHANGED
    if uses & _CALLED:
        may = may and setting._may_call(path)
    if uses & _FILLED:
        may = may and path in known.CONTAINERS
    return may


def trust(setting: str | Iterable[str]) -> Trust:
    """The checked `trusted=` setting."""
    if isinstance(setting, str) and setting in (WORKSPACE, NONE):
        return Trust() if setting == WORKSPACE else Trust(())
    entries = () if isinstance(setting, str | bytes) or not isinstance(setting, Iterable) else tuple(setting)
    if not entries or not all(map(_is_entry, entries)):
        raise InvalidInputError(
            f'trusted must be "{WORKSPACE}", "{NONE}" or a list of classes and packages such as'
            f' ["mypackage.filters.Detrend", "mypackage.*"], got {setting!r}'
        )
    return Trust(tuple(dict.fromkeys(entries)))


def _is_entry(entry: object) -> bool:
    return isinstance(entry, str) and entry.removesuffix(".*").replace(".", "a").isidentifier()


@lru_cache(maxsize=64)
def _packages(entries: tuple[str, ...]) -> frozenset[str]:
    """Packages whose estimators are meant; a name without a dot is a package, too."""
    return frozenset(entry.removesuffix(".*") for entry in entries if entry.endswith(".*") or "." not in entry)


def _is_estimator(found: Any) -> bool:
    return isinstance(found, type) and any(hasattr(found, name) for name in ("fit", "transform", "predict", "split"))


def _full_name(found: Any) -> str:
    return f"{found.__module__}.{found.__qualname__}"


def _first_global(data: bytes | memoryview) -> str:
    try:
        return next(iter(contents_of(data).globals), "nothing")
    except (InvalidInputError, pickle.UnpicklingError):
        return "what cannot be told"
