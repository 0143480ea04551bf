"""The class that takes the place of nirs4all's: one of ours, with what it can take over from nirs4all's own.

Methods that are SQL alone are nirs4all's and run on our tables; so their results are those of the release
that is installed. A folder that nirs4all itself has written stays with nirs4all's own class.
"""

from __future__ import annotations

import inspect
from functools import update_wrapper
from pathlib import Path
from types import FunctionType
from typing import Any

from n4a_fast.engine.workspace import STORE_FILE
from n4a_fast.integrations.nirs4all.array_facade import ArrayFacade
from n4a_fast.integrations.nirs4all.host_store import Nirs4allStore
from n4a_fast.integrations.nirs4all.store_of_1x import Store1x

SQLITE_FILE = "store.sqlite"
_RESULTS = [f"{verb}_{kind}_result" for verb in ("save", "load") for kind in ("conformal", "robustness", "tuning")]
TAKEN_OVER = (
    *_RESULTS,
    *(f"list_{kind}_results" for kind in ("conformal", "robustness", "tuning")),
    "list_runs",
    "list_pipelines",
    "query_predictions",
    "top_predictions",
    "get_chain_predictions",
    "query_aggregated_predictions",
    "query_top_aggregated_predictions",
    "query_chain_summaries",
    "count_chain_summaries",
    "query_top_chains",
    "replay_chain",
    "export_chain",
    "_validate_chain_export",
    "get_studio_run_detail_v1",
    "get_studio_run_detail_runtime_v1",
    "_read_studio_run_detail_v1",
    "_read_studio_run_detail_runtime_v1",
)
_OF_ARRAYS = "nirs4all.pipeline.storage.array_store"


def is_of_1x(original: type) -> bool:
    """Whether this is a store with its arrays in files of their own, as all releases since late 0.8 have it."""
    return hasattr(original, "array_store")


def hosted(original: type) -> type:
    """The class to be used in place of nirs4all's."""
    return _hosted_1x(original) if is_of_1x(original) else Nirs4allStore


def _hosted_1x(original: type) -> type:
    members = {name: vars(original)[name] for name in TAKEN_OVER if name in vars(original)}
    if hasattr(original, "save_prediction"):
        members["save_prediction"] = _as_described(Store1x.save_prediction, original)

    def new(cls: type, workspace_path: Any = None, *args: Any, **options: Any) -> Any:
        if workspace_path is not None and is_of_nirs4all(Path(workspace_path)):
            return original(workspace_path, *args, **options)  # no instance of this class: it is not initialised again
        return Store1x.__new__(cls)

    def open_readonly(cls: Any, workspace_path: str | Path) -> Any:
        if is_of_nirs4all(Path(workspace_path)):
            return original.open_readonly(workspace_path)  # type: ignore[attr-defined]
        return super(store, cls).open_readonly(workspace_path)

    described = {"__doc__": Store1x.__doc__, "__module__": Store1x.__module__, "__qualname__": Store1x.__qualname__}
    chosen: dict[str, Any] = {"__new__": new, "open_readonly": classmethod(open_readonly)}
    store: Any = type("Store1x", (Store1x,), {**members, **chosen, **described})
    return store  # type: ignore[no-any-return]


def _as_described(method: Any, original: type) -> Any:
    """A method of ours that takes what it is given, with the signature that nirs4all's has."""
    parts = (method.__code__, method.__globals__, method.__name__, method.__defaults__, method.__closure__)
    described: Any = update_wrapper(FunctionType(*parts), method)  # not one more call around it: there are thousands
    described.__signature__ = inspect.signature(getattr(original, method.__name__))
    return described


def is_of_nirs4all(folder: Path) -> bool:
    """Whether nirs4all's own store is in this folder and none of ours."""
    return (folder / SQLITE_FILE).exists() and not (folder / STORE_FILE).exists()


def differences(original: type, arrays: type | None) -> list[str]:
    """What nirs4all's classes offer that ours do not, in words; nothing for a release that can be replaced."""
    ours = hosted(original)
    found = _differences(original, ours, "WorkspaceStore")
    return found + (_differences(arrays, ArrayFacade, "ArrayStore") if arrays is not None else [])


def _differences(theirs: type, ours: type, name: str) -> list[str]:
    found = []
    for member in (member for member in dir(theirs) if not member.startswith("_")):
        if not hasattr(ours, member):
            found.append(f"{name}.{member} is new")
            continue
        wanted, given = getattr(theirs, member), getattr(ours, member)
        if inspect.isfunction(wanted) and callable(given):
            missing = [each for each in inspect.signature(wanted).parameters if not _takes(given, each)]
            found += [f"{name}.{member} takes {each}" for each in missing]
    return found


def _takes(method: Any, parameter: str) -> bool:
    parameters = inspect.signature(method).parameters
    return parameter in parameters or any(
        each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL) for each in parameters.values()
    )
