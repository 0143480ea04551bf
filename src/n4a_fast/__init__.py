"""n4a_fast: the storage engine for nirs4all sweeps, on one DuckDB file and a folder of artifacts.

The names below are imported when they are first used, so that a program pays for what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from n4a_fast.version import __version__

if TYPE_CHECKING:
    from n4a_fast.bundles.inspection import inspect_bundle
    from n4a_fast.chain_builder import ChainBuilder
    from n4a_fast.integrations.nirs4all import install, uninstall
    from n4a_fast.leaderboard import Leaderboard
    from n4a_fast.library import PipelineLibrary
    from n4a_fast.replay import register_linear_operator, replay_chain, replay_chains
    from n4a_fast.store import WorkspaceStore
    from n4a_fast.values.chain_input import ChainInput
    from n4a_fast.views import Chain, Run

_PLACES = {
    "Chain": "views",
    "ChainBuilder": "chain_builder",
    "ChainInput": "values.chain_input",
    "Leaderboard": "leaderboard",
    "PipelineLibrary": "library",
    "Run": "views",
    "WorkspaceStore": "store",
    "inspect_bundle": "bundles.inspection",
    "install": "integrations.nirs4all",
    "register_linear_operator": "replay",
    "replay_chain": "replay",
    "replay_chains": "replay",
    "uninstall": "integrations.nirs4all",
}
_MODULES = ("bundles", "chain_builder", "errors", "integrations", "library", "replay", "store")

__all__ = [
    "Chain",
    "ChainBuilder",
    "ChainInput",
    "Leaderboard",
    "PipelineLibrary",
    "Run",
    "WorkspaceStore",
    "__version__",
    "inspect_bundle",
    "install",
    "register_linear_operator",
    "replay_chain",
    "replay_chains",
    "uninstall",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"n4a_fast.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module 'n4a_fast' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"n4a_fast.{_PLACES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES, *_MODULES})
